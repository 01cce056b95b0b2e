// What the page does in the browser by itself: following answers, keys, drawers, colours, copying.
(() => {
  'use strict';
  const NEAR_PX = 48;
  const $ = (id) => document.getElementById(id);

  // ---- follow an answer to its end, unless the reader has scrolled up

  const followed = new WeakSet();
  function follow(log) {
    if (followed.has(log)) return;
    followed.add(log);
    let sticks = true;
    let frame = 0;
    const near = () => log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_PX;
    const leave = () => { sticks = false; };
    log.addEventListener('wheel', (event) => { if (event.deltaY < 0) leave(); }, { passive: true });
    log.addEventListener('touchmove', leave, { passive: true });
    log.addEventListener('pointerdown', (event) => { if (event.target === log && !near()) leave(); });
    log.addEventListener('keydown', (event) => { if (['PageUp', 'ArrowUp', 'Home'].includes(event.key)) leave(); });
    log.addEventListener('scroll', () => { if (!sticks && near()) sticks = true; }, { passive: true });
    const down = () => { frame = 0; if (sticks) log.scrollTop = log.scrollHeight; };
    const keep = () => { if (sticks && !frame) frame = requestAnimationFrame(down); };
    const sizes = new ResizeObserver(keep); // the column's foot grows when its answer ends, and so does what is drawn late
    sizes.observe(log);
    new MutationObserver(() => {
      settle(log);
      if (log.firstElementChild) sizes.observe(log.firstElementChild);
      keep();
    }).observe(log, { childList: true, subtree: true, characterData: true });
  }

  // ---- answers that grow. Their frames come through components that show nothing; what is new in them is appended
  // here, and all else stays as it is. A column that is in no frame any more has ended: then the chat shows its answer.

  const growing = new Map();

  function draw(source, frames, ask) {
    const foreign = watching.takeRecords();
    Object.entries(frames).forEach(([letter, frame]) => grow(source, letter, frame));
    let ended = false;
    growing.forEach((draft, letter) => {
      if (draft.source !== source || draft.over || letter in frames) return;
      ended = draft.over = true;
      settle(draft.log);
    });
    if (ended && Object.keys(frames).length) ask(); // the last one is settled when the stream ends
    watching.takeRecords(); // what was done here needs no tending
    if (foreign.length) later();
  }

  function grow(source, letter, frame) {
    const log = document.querySelector(`#chat-${letter} [role="log"]`);
    if (!log) return;
    let draft = growing.get(letter);
    if (draft?.turn !== frame.turn || draft.row.parentNode !== log) draft = sprout(source, letter, frame.turn, log);
    think(draft, frame);
    if (frame.blocks.length > draft.blocks) {
      draft.last.insertAdjacentHTML('beforebegin', frame.blocks.slice(draft.blocks));
      draft.blocks = frame.blocks.length;
    }
    if (frame.last !== draft.rendered) {
      draft.last.innerHTML = draft.rendered = frame.last;
      draft.rest = null;
    }
    if (frame.rest) {
      if (!draft.rest) tip(draft.last).append(draft.rest = new Text());
      lengthen(draft.rest, frame.rest);
    }
    tell(letter, frame.status);
  }

  function sprout(source, letter, turn, log) {
    growing.get(letter)?.row.remove();
    const row = document.createElement('div');
    row.className = 'message-row panel bot-row growing';
    row.ariaLive = 'off'; // the whole answer is read out when it has ended
    row.innerHTML = '<details class="thought" open hidden><summary></summary><p></p></details>'
      + '<div class="message prose"><div class="last"></div></div>';
    const thought = new Text();
    row.querySelector('p').append(thought);
    const draft = { source, turn, log, row, thought, last: row.querySelector('.last'), blocks: 0, rendered: '', rest: null };
    growing.set(letter, draft);
    log.append(row);
    return draft;
  }

  function think(draft, frame) {
    if (!frame.thought) return;
    const fold = draft.row.firstChild;
    lengthen(draft.thought, frame.thought);
    fold.hidden = false;
    const title = frame.last ? 'Thought' : 'Thinking\u2026';
    if (fold.firstChild.textContent === title) return;
    fold.firstChild.textContent = title;
    fold.open = !frame.last;
  }

  function lengthen(text, whole) { if (whole.length > text.length) text.appendData(whole.slice(text.length)); }

  // where the text goes on: the end of the innermost last block
  function tip(element) {
    const end = element.lastElementChild;
    return end && /^(P|UL|OL|LI|PRE|CODE|BLOCKQUOTE|H[1-6]|DIV)$/.test(end.tagName) && !end.nextSibling?.data?.trim() ? tip(end) : element;
  }

  function tell(letter, status) {
    const line = $(`status-${letter}`)?.querySelector('.stat');
    if (!line) return;
    const state = line.dataset.state;
    line.outerHTML = status;
    if (!status.includes(`data-state="${state}"`)) markStates();
  }

  // ---- its place is taken by the chat's own message as soon as that is there

  function settle(log) {
    growing.forEach((draft, letter) => {
      if (draft.log !== log || !draft.over) return;
      const shown = [...log.querySelectorAll('.message-row:not(.growing)')].at(-1);
      if (shown && draft.row.textContent.trim() && !(shown.matches('.bot-row') && shown.textContent.trim())) return;
      markThoughts(log);
      drop(draft, letter);
    });
  }

  function drop(draft, letter) {
    draft.row.remove();
    growing.delete(letter);
  }

  // ---- names for what Gradio leaves without one

  const HINTS = { 'model': 'choose a model', 'preset': 'presets', 'pull': 'name of a model, for example qwen3:0.6b' };
  function hint(input) {
    const kind = input.closest('.picker').id.split('-')[0];
    if (!input.placeholder) input.placeholder = HINTS[kind] || '';
    if (kind === 'model' && input.title !== input.value) input.title = input.value; // a long name is cut in sight
  }

  // ---- what the style sheet needs to know of the columns, and a word to screen readers when an answer has ended. Selectors that look into their descendants (:has) would
  // have the browser search all answers again at every frame: a third of its time.

  function mark(element, name, value) {
    if (element.dataset[name] === value) return;
    if (value === undefined) delete element.dataset[name]; else element.dataset[name] = value;
  }

  const ENDS = ['done', 'stopped', 'failed'];

  function markThoughts(within) {
    within.querySelectorAll('.thought-group').forEach((group) => mark(group.closest('.bot-row'), 'thought', ''));
  }

  function markStates() {
    let live; let used;
    const ended = [];
    document.querySelectorAll('.acol').forEach((column) => {
      const line = column.querySelector('.stat');
      if (!line) return;
      const { state } = line.dataset;
      const over = column.dataset.live === 'true' && ENDS.includes(state);
      mark(column, 'state', state);
      mark(column, 'live', line.dataset.live);
      if (column.parentElement.id !== 'columns') return; // a side of a battle, which has its own word and its own stop
      if (over) ended.push(`${column.id.slice(-1).toUpperCase()}: ${state}`);
      if (line.dataset.live === 'true') live = '';
      if (line.dataset.state !== 'empty') used = '';
    });
    if (ended.length) $('arena-live').textContent = ended.join(', ');
    const tab = $('columns')?.closest('.tabitem');
    if (!tab) return;
    tab.classList.add('compare-tab');
    mark(tab, 'live', live);
    mark(tab, 'used', used);
    mark(tab, 'only', tab.querySelector('.mode[data-only]')?.dataset.only);
    const box = promptBox();
    const asks = tab.dataset.only ? `Ask ${tab.dataset.only.toUpperCase()} only\u2026` : 'Ask all columns\u2026';
    if (box && box.placeholder !== asks) box.placeholder = asks;
  }

  // half of a character, as a cut leaves it of an emoji, would end the page's stream of events
  function mend(box) {
    if (box.value?.isWellFormed?.() !== false) return;
    box.value = box.value.toWellFormed();
    box.dispatchEvent(new Event('input', { bubbles: true }));
  }

  const NAMES = {
    '#prompt textarea': 'Prompt for all columns',
    '#battle-prompt textarea': 'Prompt for all sides',
    '.multimodal-textbox .submit-button': 'Send',
    '.multimodal-textbox .upload-button': 'Attach files',
  };

  function tend() {
    markStates();
    arenaColumns.tend();
    growing.forEach((draft, letter) => { if (draft.over && $(`col-${letter}`)?.dataset.live !== 'true') drop(draft, letter); });
    markThoughts(document);
    document.querySelectorAll('.thought-group button[aria-label=""]').forEach((button) => { button.ariaLabel = 'Show or hide the thought'; });
    document.querySelectorAll('.picker input').forEach(hint);
    document.querySelectorAll('.abot [role="log"]').forEach(follow);
    document.querySelectorAll('button.icon').forEach((button) => { if (!button.title) button.title = button.textContent.trim(); });
    if ($('drawer')?.dataset.open) placeDrawer();
    Object.entries(NAMES).forEach(([what, is]) => {
      document.querySelectorAll(`${what}:not([aria-label="${is}"])`).forEach((element) => { element.ariaLabel = is; });
    });
  }

  // ---- drawers: a column's settings, the shared system prompt

  function placeDrawer() {
    const letter = $('drawer')?.dataset.open;
    const chat = letter && $(`chat-${letter}`);
    if (!chat?.offsetParent) { closeDrawer(); return; }
    const column = $(`col-${letter}`);
    const box = chat.getBoundingClientRect();
    const root = document.documentElement.style;
    root.setProperty('--drawer-left', `${box.left}px`);
    root.setProperty('--drawer-top', `${box.top}px`);
    root.setProperty('--drawer-width', `${box.width}px`);
    root.setProperty('--drawer-height', `${$(`status-${letter}`).getBoundingClientRect().top - box.top - 6}px`);
    $('drawer').style.setProperty('--hue', getComputedStyle(column).getPropertyValue('--hue'));
  }

  function openDrawer(letter) {
    closeDrawer();
    arenaColumns.reveal(letter);
    $('drawer').dataset.open = letter;
    $(`settings-${letter}`).setAttribute('aria-expanded', 'true');
    placeDrawer();
    $('drawer').querySelector('.switch input')?.focus({ preventScroll: true });
  }

  function closeDrawer() {
    const letter = $('drawer')?.dataset.open;
    if (!letter) return false;
    delete $('drawer').dataset.open;
    const button = $(`settings-${letter}`);
    button?.setAttribute('aria-expanded', 'false');
    if ($('drawer').contains(document.activeElement)) button?.focus({ preventScroll: true });
    return true;
  }

  // ---- panels that lie under their button: presets, and what is kept

  const PANELS = { 'presets-toggle': 'presets-panel', 'keep-toggle': 'keep-panel' };
  const said = new WeakMap();
  let panel = null; // { box, button } of the open one

  function openPanel(button) {
    const again = panel?.button === button;
    closePanel();
    if (again) return;
    const box = $(PANELS[button.id]);
    panel = { box, button };
    box.dataset.open = '';
    button.setAttribute('aria-expanded', 'true');
    placePanel();
    enterPanel();
  }

  function placePanel() {
    if (!panel) return;
    const { box, button } = panel;
    const { left, bottom } = button.getBoundingClientRect();
    const most = document.documentElement.clientWidth - box.offsetWidth - 10;
    box.style.left = `${Math.max(10, Math.min(left, most))}px`;
    box.style.top = `${bottom + 4}px`;
  }

  function enterPanel() {
    panel?.box.querySelector('[data-first], .ask button, input, button:not(:disabled)')?.focus({ preventScroll: true });
  }

  // a panel that has just been drawn, maybe anew: what had the focus in it is gone
  function tendPanel(element) {
    element.querySelectorAll('time').forEach((time) => {
      time.textContent = new Date(time.dateTime).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
    });
    const word = element.querySelector('[data-say]')?.dataset;
    if (word && said.get(element) !== word.number) {
      said.set(element, word.number);
      element.querySelector('form')?.reset();
      say(word.say);
    }
    if (!panel?.box.contains(element)) return;
    placePanel();
    if ([document.body, panel.button].includes(document.activeElement)) enterPanel();
  }

  function closePanel() {
    if (!panel) return false;
    const { box, button } = panel;
    panel = null;
    delete box.dataset.open;
    button.setAttribute('aria-expanded', 'false');
    if (box.contains(document.activeElement)) button.focus({ preventScroll: true });
    return true;
  }

  function toggleSystem() {
    const opens = $('system').toggleAttribute('data-open');
    $('system-toggle')?.setAttribute('aria-expanded', String(opens));
    if (opens) $('system')?.querySelector('textarea')?.focus();
  }

  // ---- light and dark: the system's choice, until the user makes one

  function paint(mode) { document.body.classList.toggle('dark', mode === 'dark'); }
  function toggleTheme() {
    const mode = document.body.classList.contains('dark') ? 'light' : 'dark';
    paint(mode);
    try { localStorage.setItem('ollama-arena-theme', mode); } catch { /* private windows may refuse */ }
  }
  function restoreTheme() {
    let mode = null;
    try { mode = localStorage.getItem('ollama-arena-theme'); } catch { /* as above */ }
    if (mode) paint(mode);
  }

  // ---- keys

  function keysDialog() {
    const dialog = $('arena-keys');
    if (dialog.open) dialog.close(); else dialog.showModal();
  }

  const typing = (element) => element && (/^(INPUT|TEXTAREA|SELECT)$/.test(element.tagName) || element.isContentEditable);
  const promptBox = () => document.querySelector('#prompt textarea');

  function onKey(event) {
    if (event.isComposing || event.defaultPrevented) return;
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (event.key === 'Escape') {
      if ($('arena-keys')?.open || closePanel() || closeDrawer()) return;
      $('stop-all')?.click();
    } else if (event.altKey && event.code === 'KeyN') {
      event.preventDefault();
      $('add')?.click();
    } else if (event.altKey && event.code === 'KeyW') {
      event.preventDefault();
      arenaColumns.next();
    } else if (event.altKey && /^Digit[1-9]$/.test(event.code)) {
      event.preventDefault();
      $(`settings-${'abcdefghi'[Number(event.code.slice(5)) - 1]}`)?.click();
    } else if (plain && event.key === 'ArrowUp' && document.activeElement === promptBox() && !promptBox().value) {
      event.preventDefault();
      $('edit')?.click();
    } else if (plain && !typing(document.activeElement) && event.key === '/') {
      event.preventDefault();
      promptBox()?.focus();
    } else if (plain && !typing(document.activeElement) && event.key === '?') {
      event.preventDefault();
      keysDialog();
    }
  }

  function onClick(event) {
    if (event.target.id === 'arena-keys') event.target.close(); // beside it
    const flag = event.target.closest('.flag[title]');
    if (flag) say(flag.title); // a finger sees no title
    const button = event.target.closest('button');
    if (button && PANELS[button.id]) { openPanel(button); return; }
    if (panel && (button?.dataset.closes !== undefined || (event.target.isConnected && !panel.box.contains(event.target)))) closePanel();
    if (!button) return;
    if (button.role === 'tab') button.scrollIntoView({ block: 'nearest', inline: 'center' });
    if (button.dataset.ui === 'keys') keysDialog();
    else if (button.dataset.ui === 'theme') toggleTheme();
    else if (button.id === 'system-toggle') toggleSystem();
    else if (/^settings-[a-l]$/.test(button.id)) {
      if ($('drawer').dataset.open === button.id.slice(-1)) closeDrawer(); else openDrawer(button.id.slice(-1));
    } else if (button.dataset.ui === 'close-drawer' || /^close-[a-l]$/.test(button.id)) closeDrawer();
    else if (button.dataset.action === 'settings') $(`settings-${button.closest('.acol').id.slice(-1)}`).click();
    else if (button.dataset.action === 'example' || button.id === 'edit') setTimeout(() => promptBox()?.focus(), 150);
  }

  // ---- moments, told as time goes by: the server sends a piece only when something in it has changed

  const SPANS = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const TOLD = {
    ago: (past) => (past < 1 ? 'just now' : `${span(past)} ago`),
    since: (past) => `for ${span(past)}`,
    for: (past) => (past > 0 ? 'no longer' : `for ${span(-past)}`),
    in: (past) => (past > 0 ? 'now' : `in ${span(-past)}`),
  };
  const timed = new Map();
  let telling = 0;

  function span(seconds) {
    const [size, unit] = SPANS.find(([least]) => seconds >= least) || [1, 's'];
    return `${Math.floor(seconds / size)} ${unit}`;
  }

  // the clocks of server and browser may differ: what counts is the time since the piece came
  function tellTimes(element) {
    const now = element.firstElementChild?.dataset.now;
    if (now === undefined) return;
    if (timed.get(element)?.now !== now) timed.set(element, { now, ahead: Date.now() / 1000 - now });
    const { ahead } = timed.get(element);
    element.querySelectorAll('time').forEach((time) => {
      const [[form, at]] = Object.entries(time.dataset);
      const text = TOLD[form](Date.now() / 1000 - ahead - at);
      if (!time.title) time.title = new Date((Number(at) + ahead) * 1000).toLocaleString();
      if (!time.firstChild) time.append(text); else if (time.firstChild.data !== text) time.firstChild.data = text;
    });
    if (!telling) telling = setInterval(tellAll, 1000);
  }

  function tellAll() {
    timed.forEach((_, element) => {
      if (!element.isConnected) timed.delete(element);
      else if (!document.hidden && element.offsetParent) tellTimes(element);
    });
  }

  // ---- what leaves the page

  function say(text) {
    const toast = $('arena-toast');
    toast.textContent = text;
    toast.classList.add('shown');
    clearTimeout(say.timer);
    say.timer = setTimeout(() => toast.classList.remove('shown'), 1500 + 40 * text.length);
  }

  async function copyLink(query) {
    const link = location.origin + location.pathname + query;
    try {
      await navigator.clipboard.writeText(link);
      say('Link copied');
    } catch { // no clipboard without HTTPS or permission: the address bar will do
      history.replaceState(null, '', link);
      say('The link is in the address bar');
    }
  }

  function download(parcel) {
    const end = parcel.indexOf('\n');
    const [kind, text] = [parcel.slice(0, end), parcel.slice(end + 1)];
    const type = { json: 'application/json', md: 'text/markdown', html: 'text/html' }[kind];
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], { type }));
    const stamp = new Date().toISOString().slice(0, 16).replace(/[:T]/g, '-');
    link.download = `comparison-${stamp}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    say(`Saved as ${link.download}`);
  }

  window.arena = { copyLink, download, draw, tellTimes, tendPanel };

  // ---- start

  let waiting = 0;
  function later() { if (!waiting) waiting = setTimeout(() => { waiting = 0; tend(); }, 120); }
  const watching = new MutationObserver(later);

  function start() {
    restoreTheme();
    for (const [id, role] of [['arena-live', 'status'], ['arena-toast', 'status']]) {
      const element = document.createElement('div');
      element.id = id;
      element.setAttribute('role', role);
      document.body.append(element);
    }
    document.addEventListener('keydown', (event) => { if (event.key === 'Enter') mend(event.target); }, true);
    document.addEventListener('focusout', (event) => mend(event.target), true);
    document.addEventListener('keydown', onKey);
    document.addEventListener('click', onClick);
    window.addEventListener('resize', () => { placeDrawer(); placePanel(); });
    document.addEventListener('scroll', ({ target }) => { if (target.contains($('columns'))) placeDrawer(); }, true);
    watching.observe(document.documentElement, { childList: true, subtree: true });
    tend();
  }
  if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', start); else start();
})();
