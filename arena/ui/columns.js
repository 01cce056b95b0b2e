// Which of the columns are seen: one of them over the whole width, or on a narrow screen the one that is gone to.
(() => {
  'use strict';
  const $ = (id) => document.getElementById(id);
  const narrow = matchMedia('(max-width: 640px)');
  const columns = () => [...document.querySelectorAll('#columns > .acol')];
  const letter = (column) => column.id.slice(-1);
  const watching = new IntersectionObserver((seen) => {
    seen.forEach(({ target, isIntersecting }) => { target.dataset.seen = isIntersecting; });
    mark();
  }, { threshold: 0.6 });
  let drawn = '';
  let wide = '';

  // a button for each column, where there are several of them
  function tend() {
    const bar = $('letters');
    const open = columns();
    const now = open.map(letter).join('');
    if (!bar || now === drawn) return;
    drawn = now;
    watching.disconnect();
    open.forEach((column) => watching.observe(column));
    const buttons = open.length < 2 ? [] : open.map((column) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.className = `hue-${letter(column)}`;
      button.dataset.column = letter(column);
      button.textContent = letter(column).toUpperCase();
      return button;
    });
    bar.replaceChildren(...buttons);
    widen(''); // what is new is to be seen
  }

  function mark() {
    $('letters').querySelectorAll('button').forEach((button) => {
      const { column } = button.dataset;
      const text = narrow.matches ? `Go to ${column.toUpperCase()}` : `${column.toUpperCase()} over the whole width`;
      button.ariaLabel = text;
      button.title = `${text} (Alt + W)`;
      button.ariaPressed = narrow.matches ? null : String(wide === column);
      button.ariaCurrent = narrow.matches && $(`col-${column}`)?.dataset.seen === 'true' ? 'true' : null;
    });
  }

  function widen(column) {
    wide = column;
    columns().forEach((each) => {
      each.toggleAttribute('data-wide', letter(each) === wide);
      each.toggleAttribute('data-aside', wide !== '' && letter(each) !== wide);
    });
    mark();
    window.dispatchEvent(new Event('resize')); // what lies over a column is placed anew
  }

  function show(column) {
    if (narrow.matches) $(`col-${column}`).scrollIntoView({ behavior: 'smooth', block: 'nearest', inline: 'start' });
    else widen(wide === column ? '' : column);
    const all = !narrow.matches && !wide;
    $('arena-live').textContent = all ? 'All columns' : `${column.toUpperCase()}${wide ? ' over the whole width' : ''}`;
  }

  // the next column by key, and after the last one all of them
  function next() {
    const here = narrow.matches ? columns().find((column) => column.dataset.seen === 'true') : $(`col-${wide}`);
    const at = columns().indexOf(here) + 1;
    if (drawn.length > 1) show(drawn[at] || (narrow.matches ? drawn[0] : wide));
  }

  function onClick({ target }) {
    const column = target.closest('#letters button')?.dataset.column;
    if (column) show(column);
  }

  narrow.addEventListener('change', () => widen(''));
  document.addEventListener('click', onClick);
  window.arenaColumns = { tend, next, reveal: (column) => { if (wide && wide !== column) widen(''); } };
})();
