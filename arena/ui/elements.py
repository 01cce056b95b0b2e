"""The few Gradio components that the page uses everywhere, in the one way it uses them."""

from __future__ import annotations

import gradio as gr

RELAY = """
element.addEventListener('click', (event) => {
  const target = event.target.closest('[data-action]');
  if (target) trigger('click', {...target.dataset});
});
"""
"""A click on anything with data-action becomes Gradio's click event; the element's data are the event's attributes."""

FORMS = """
element.addEventListener('submit', (event) => {
  event.preventDefault();
  const { form, ...data } = event.target.dataset;
  trigger('click', { action: form, ...data, ...Object.fromEntries(new FormData(event.target)) });
});
"""
"""A form that is sent becomes the same click event: its data-form is the action, its fields are further attributes."""

LIVE = (
    RELAY
    + FORMS
    + """
element.addEventListener('change', ({ target }) => { if (target.name === 'value') target.form.requestSubmit(); });
const tell = () => arena.tellTimes(element);
watch('value', tell);
tell();
"""
)
"""As RELAY and FORMS; and the page's script tells the times in it."""

PANEL = RELAY + FORMS + "watch('value', () => arena.tendPanel(element));"
"""As RELAY and FORMS; the page's script opens and closes it."""

DRAW = (
    "const draw = () => { arena.draw(element, props.value, () => trigger('submit')); }; watch('value', draw); draw();"
)
"""Every value goes to the page's script, which knows by the element which stream of answers it belongs to.

The component's submit event says that one of its answers has ended while others go on.
"""


def html(value: str, elem_id: str | None = None, elem_classes: str | None = None, *, relays: bool = False) -> gr.HTML:
    """A piece of HTML, which must be escaped already; with `relays`, its buttons speak to the click listener."""
    return gr.HTML(
        value,
        elem_id=elem_id,
        elem_classes=elem_classes,
        apply_default_css=False,
        js_on_load=RELAY if relays else None,
    )


def live(elem_id: str) -> gr.HTML:
    """A piece of HTML that changes by itself while it is looked at; empty at first."""
    return gr.HTML("", elem_id=elem_id, apply_default_css=False, js_on_load=LIVE)


def panel(elem_id: str) -> gr.HTML:
    """A piece of HTML that lies over the page while it is open; empty at first."""
    return gr.HTML("", elem_id=elem_id, apply_default_css=False, js_on_load=PANEL)


def carrier(elem_id: str) -> gr.HTML:
    """A component that shows nothing: its values are frames of growing answers, which the page's script draws."""
    return gr.HTML(
        {}, html_template="", elem_id=elem_id, elem_classes="carrier", apply_default_css=False, js_on_load=DRAW
    )


def icon(text: str, elem_id: str, kind: str) -> gr.Button:
    """A button whose icon is drawn by the style sheet; its text stays there for screen readers and as a tooltip."""
    return gr.Button(text, elem_id=elem_id, size="sm", min_width=30, scale=0, elem_classes=["icon", f"i-{kind}"])
