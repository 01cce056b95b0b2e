// Asks the server at argv[2] for model argv[3] with the ollama client of npm, and prints what came as one JSON object.
import { Ollama } from "ollama";

const [host, model, question] = process.argv.slice(2);
const client = new Ollama({ host });
const options = { temperature: 0, num_predict: 12 };
const messages = [{ role: "user", content: question }];

const whole = await client.chat({ model, messages, options });
const pieces = [];
for await (const part of await client.chat({ model, messages, options, stream: true })) pieces.push(part.message.content);
const generated = await client.generate({ model, prompt: question, options });
const embedded = await client.embed({ model, input: ["one", "two"] });
const listed = await client.list();
const shown = await client.show({ model });
const running = await client.ps();
const missing = await client.chat({ model: "no-such-model", messages }).catch((error) => error);

console.log(
  JSON.stringify({
    whole: whole.message.content,
    tokens: whole.eval_count,
    pieces,
    generated: generated.response,
    sizes: embedded.embeddings.map((vector) => vector.length),
    models: listed.models.map((item) => item.name),
    family: shown.details.family,
    running: running.models.map((item) => item.name),
    missing: { message: missing.message, status: missing.status_code },
  }),
);
