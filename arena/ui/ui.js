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
    new MutationObserver(() => { if (sticks && !frame) frame = requestAnimationFrame(down); })
      .observe(log, { childList: true, subtree: true, characterData: true });
  }

  // ---- names for what Gradio leaves without one, and a word to screen readers when an answer has ended

  const told = new Map();
  function announce(status) {
    const letter = status.id.slice(-1).toUpperCase();
    const line = status.querySelector('.stat');
    const state = line ? line.dataset.state : '';
    if (told.has(letter) && told.get(letter) !== state && ['done', 'stopped', 'failed'].includes(state)) {
      $('arena-live').textContent = `${letter}: ${state}`;
    }
    told.set(letter, state);
  }

  const HINTS = { 'model': 'choose a model', 'preset': 'presets', 'pull': 'name of a model, for example qwen3:0.6b' };
  function hint(input) {
    const kind = input.closest('.picker').id.split('-')[0];
    if (!input.placeholder) input.placeholder = HINTS[kind] || '';
  }

  // ---- what the style sheet needs to know of the columns. Selectors that look into their descendants (:has) would
  // have the browser search all answers again at every frame: a third of its time.

  function mark(element, name, value) {
    if (element.dataset[name] === value) return;
    if (value === undefined) delete element.dataset[name]; else element.dataset[name] = value;
  }

  function markStates() {
    let live; let used;
    document.querySelectorAll('.acol').forEach((column) => {
      const line = column.querySelector('.stat');
      if (!line) return;
      mark(column, 'state', line.dataset.state);
      mark(column, 'live', line.dataset.live);
      if (line.dataset.live === 'true') live = '';
      if (line.dataset.state !== 'empty') used = '';
    });
    mark(document.body, 'live', live);
    mark(document.body, 'used', used);
    mark(document.body, 'only', document.querySelector('.mode[data-only]')?.dataset.only);
    $('columns')?.closest('.tabitem')?.classList.add('compare-tab');
    document.querySelectorAll('.abot .thought-group').forEach((group) => mark(group.closest('.bot-row'), 'thought', ''));
  }

  function tend() {
    markStates();
    document.querySelectorAll('.picker input').forEach(hint);
    document.querySelectorAll('.abot [role="log"]').forEach(follow);
    document.querySelectorAll('button.icon').forEach((button) => { if (!button.title) button.title = button.textContent.trim(); });
    document.querySelectorAll('.statbox').forEach(announce);
    if ($('drawer')?.dataset.open) placeDrawer();
    document.querySelectorAll('#prompt button:not([aria-label])').forEach((button) => {
      button.ariaLabel = button.classList.contains('submit-button') ? 'Send' : 'Attach files';
      button.title = button.ariaLabel;
    });
  }

  // ---- drawers: a column's settings, the shared system prompt

  function placeDrawer() {
    const letter = $('drawer')?.dataset.open;
    const chat = letter && $(`chat-${letter}`);
    if (!chat) { closeDrawer(); return; }
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

  const KEYS = [
    ['Enter', 'send'], ['Shift + Enter', 'new line'], ['Esc', 'stop all answers, or close what is open'],
    ['/', 'go to the prompt'], ['\u2191', 'edit the last prompt (in an empty prompt)'], ['Alt + N', 'add a column'],
    ['Alt + 1 \u2026 9', 'settings of a column'], ['?', 'show these keys'],
  ];
  function keysDialog() {
    let dialog = $('arena-keys');
    if (!dialog) {
      dialog = document.createElement('dialog');
      dialog.id = 'arena-keys';
      dialog.setAttribute('aria-label', 'Keys');
      const rows = KEYS.map(([key, does]) => `<div><dt><kbd>${key}</kbd></dt><dd>${does}</dd></div>`).join('');
      dialog.innerHTML = `<h2>Keys</h2><dl>${rows}</dl><form method="dialog"><button>Close</button></form>`;
      dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
      document.body.append(dialog);
    }
    if (dialog.open) dialog.close(); else dialog.showModal();
  }

  const typing = (element) => element && (/^(INPUT|TEXTAREA|SELECT)$/.test(element.tagName) || element.isContentEditable);
  const promptBox = () => document.querySelector('#prompt textarea');

  function onKey(event) {
    if (event.isComposing || event.defaultPrevented) return;
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (event.key === 'Escape') {
      if ($('arena-keys')?.open || closeDrawer()) return;
      $('stop-all')?.click();
    } else if (event.altKey && event.code === 'KeyN') {
      event.preventDefault();
      $('add')?.click();
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
    const button = event.target.closest('button');
    if (!button) return;
    if (button.dataset.ui === 'keys') keysDialog();
    else if (button.dataset.ui === 'theme') toggleTheme();
    else if (button.id === 'system-toggle') toggleSystem();
    else if (/^settings-[a-l]$/.test(button.id)) {
      if ($('drawer').dataset.open === button.id.slice(-1)) closeDrawer(); else openDrawer(button.id.slice(-1));
    } else if (button.dataset.ui === 'close-drawer' || /^close-[a-l]$/.test(button.id)) closeDrawer();
    else if (button.dataset.action === 'settings') $(`settings-${button.closest('.acol').id.slice(-1)}`).click();
    else if (button.dataset.action === 'example' || button.id === 'edit') setTimeout(() => promptBox()?.focus(), 150);
  }

  // ---- what leaves the page

  function say(text) {
    const toast = $('arena-toast');
    toast.textContent = text;
    toast.classList.add('shown');
    clearTimeout(say.timer);
    say.timer = setTimeout(() => toast.classList.remove('shown'), 2200);
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

  function download(kind, text) {
    const type = kind === 'json' ? 'application/json' : 'text/markdown';
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], { type }));
    const stamp = new Date().toISOString().slice(0, 16).replace(/[:T]/g, '-');
    link.download = `comparison-${stamp}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    say(`Saved as ${link.download}`);
  }

  window.arena = { copyLink, download };

  // ---- start

  function start() {
    restoreTheme();
    for (const [id, role] of [['arena-live', 'status'], ['arena-toast', 'status']]) {
      const element = document.createElement('div');
      element.id = id;
      element.setAttribute('role', role);
      document.body.append(element);
    }
    document.addEventListener('keydown', onKey);
    document.addEventListener('click', onClick);
    window.addEventListener('resize', placeDrawer);
    document.addEventListener('scroll', (event) => { if (event.target.id === 'columns') placeDrawer(); }, true);
    let waiting = 0;
    const later = () => { if (!waiting) waiting = setTimeout(() => { waiting = 0; tend(); }, 120); };
    new MutationObserver(later).observe(document.documentElement, { childList: true, subtree: true });
    tend();
  }
  if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', start); else start();
})();
