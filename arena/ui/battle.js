// The battle tab in the browser: its keys, the order of more than two sides, focus, and the way back after a reload.
(() => {
  'use strict';
  const KEPT = 'ollama-arena-battle';
  const $ = (id) => document.getElementById(id);
  const ballot = () => document.querySelector('#battle-ballot .ballot');
  const shown = () => Boolean(ballot()?.offsetParent);
  const promptBox = () => document.querySelector('#battle-prompt textarea');
  const writes = (element) => element && (element.matches('textarea, select, input:not([type="radio"], [type="checkbox"])') || element.isContentEditable);

  // ---- the ballot has changed: tell it, remember the battle, put the focus where the next key is expected

  let told = '';
  function changed(element) {
    const now = element.querySelector('.ballot');
    if (!now) return;
    const { phase, battle = '', turns, say, most, best } = now.dataset;
    offer(most);
    keep(phase === 'idle' ? '' : battle);
    rank(now, `${battle} ${turns}`);
    const state = `${phase} ${battle} ${turns}`;
    if (state === told) return;
    const first = !told;
    told = state;
    const tab = $('battle');
    if (tab) tab.dataset.phase = phase;
    if (!first) $('battle-live').textContent = say;
    if (!first && shown()) place(now, phase);
    if (!first && best) show(best);
  }

  // as many sides as there are models for
  function offer(most) {
    if (!most) return;
    document.querySelectorAll('#battle-sides input').forEach((input, at) => {
      input.disabled = at + 2 > Number(most);
      input.parentElement.title = input.disabled ? `Needs ${at + 2} models` : '';
    });
  }

  // on a narrow screen one side is seen at a time
  function show(side) {
    $(`col-battle-${side}`)?.scrollIntoView({ behavior: 'smooth', block: 'nearest', inline: 'start' });
  }

  function place(now, phase) {
    const active = document.activeElement;
    const free = !active || active === document.body || now.contains(active);
    const idle = free || (active === promptBox() && !promptBox().value);
    if (phase === 'idle') {
      promptBox()?.focus();
      hold();
    } else if (phase !== 'answering' && idle) now.focus({ preventScroll: true });
  }

  // the prompt is let go of, or drawn anew, a moment after the ballot: until somebody goes elsewhere it gets the focus back
  let holding;
  function hold(tries = 50) {
    clearTimeout(holding);
    const active = document.activeElement;
    if (!active || active === document.body || ballot()?.contains(active)) promptBox()?.focus();
    if (tries && ballot()?.dataset.phase === 'idle') holding = setTimeout(() => hold(tries - 1), 100);
  }

  // ---- a battle outlives a reload of its page

  function keep(battle) {
    try {
      if (battle) sessionStorage.setItem(KEPT, battle); else sessionStorage.removeItem(KEPT);
    } catch { /* private windows may refuse */ }
  }

  function kept() {
    try { return sessionStorage.getItem(KEPT) || ''; } catch { return ''; }
  }

  // ---- more than two sides: an order, best first, in which equal ones stand together

  const order = { of: '', levels: [], equal: false };

  function rank(now, of) {
    if (order.of !== of) Object.assign(order, { of, levels: [], equal: false });
    const sides = [...now.querySelectorAll('[data-rank]')];
    if (!sides.length) return;
    sides.forEach((side) => {
      const level = order.levels.findIndex((each) => each.includes(side.dataset.rank));
      side.lastElementChild.textContent = level < 0 ? '' : `#${level + 1}`;
      side.classList.toggle('pressed', level >= 0);
    });
    const text = order.levels.map((level) => level.join(' = ').toUpperCase()).join(' > ');
    now.querySelector('.order').textContent = text ? `${text}${order.equal ? ' = ' : ''}` : 'Press the sides in order, best first.';
    const vote = now.querySelector('[data-action="rank"]');
    vote.dataset.order = order.levels.map((level) => level.join('=')).join('>');
    vote.disabled = order.levels.flat().length < sides.length;
  }

  function press(now, { rank: side, battleUi: does }) {
    if (does === 'equal') order.equal = order.levels.length > 0 && !order.equal;
    else if (does === 'undo') {
      if (!order.equal) order.levels.at(-1)?.pop();
      order.levels = order.levels.filter((level) => level.length);
      order.equal = false;
    } else if (!order.levels.flat().includes(side)) {
      if (order.equal) order.levels.at(-1).push(side); else order.levels.push([side]);
      order.equal = false;
    }
    rank(now, order.of);
  }

  // ---- keys and clicks

  function onKey(event) {
    if (event.isComposing || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!shown() || document.querySelector('dialog[open]')) return;
    const active = document.activeElement;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const writing = writes(active);
    if (writing && !(key === 'Escape' && active === promptBox())) return;
    if (key === 'Enter' && active?.matches('button, a, input')) return; // it is that one's key
    const button = ballot().querySelector(`[data-key="${CSS.escape(key)}"]`);
    if (button && !button.disabled && !event.repeat) button.click();
    else if (key === '/') promptBox()?.focus();
    else if (writing) leave();
    else return;
    event.preventDefault();
  }

  // Escape leaves the prompt, so that keys vote
  function leave() {
    clearTimeout(holding);
    ballot().focus({ preventScroll: true });
  }

  function onClick(event) {
    const button = event.target.closest('button');
    if (!button) return;
    if (button.id === 'battle-label') {
      button.setAttribute('aria-expanded', String($('battle-labels').toggleAttribute('data-open')));
    } else if (button.dataset.to) {
      show(button.dataset.to);
      ballot().focus({ preventScroll: true }); // the next key is the ballot's
    } else if (button.closest('#battle-examples')) setTimeout(() => promptBox()?.focus(), 150);
    else if (button.closest('#battle-ballot')) {
      if (button.dataset.action) button.classList.add('pressed');
      else press(ballot(), button.dataset);
    }
  }

  window.arenaBattle = { changed, kept };

  function start() {
    const live = document.createElement('div');
    live.id = 'battle-live';
    live.setAttribute('role', 'status');
    document.body.append(live);
    document.addEventListener('keydown', onKey, true); // before the page's own keys
    document.addEventListener('click', onClick);
    document.addEventListener('pointerdown', () => clearTimeout(holding), true);
  }
  if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', start); else start();
})();
