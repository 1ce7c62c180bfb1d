// Sorts, filters and copies what the page already shows. Without it nothing is missing.
(() => {
  'use strict';
  const make = (tag, name, text) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text) made.textContent = text;
    return made;
  };
  const button = (name, text, press) => {
    const made = make('button', name, text);
    made.type = 'button';
    made.addEventListener('click', () => press(made));
    return made;
  };
  const words = cell => cell.innerText.replace(/\s+/g, ' ').trim();

  // -- copy
  const fallback = text => {
    const area = make('textarea', 'hidden', '');
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done ? Promise.resolve() : Promise.reject();
  };
  const copy = text =>
    navigator.clipboard ? navigator.clipboard.writeText(text).catch(() => fallback(text)) : fallback(text);
  const said = document.body.appendChild(make('p', 'hidden'));
  said.setAttribute('role', 'status');
  const copier = (label, content) => button('copy', label, pressed => {
    const tell = word => {
      pressed.textContent = said.textContent = word;
      setTimeout(() => { pressed.textContent = label; said.textContent = ''; }, 1600);
    };
    copy(content()).then(() => tell('Copied'), () => tell('Not copied: select and copy by hand'));
  });
  // A spreadsheet would run a cell that begins like a formula.
  const field = text => {
    const safe = /^[=+@\t]|^-\D/.test(text) ? "'" + text : text;
    return /[",\n]/.test(safe) ? '"' + safe.replace(/"/g, '""') + '"' : safe;
  };
  const csv = table => [...table.rows].map(row =>
    [...row.cells].filter(cell => !/\bbar(-head)?\b/.test(cell.className))
      .map(cell => field(words(cell))).join(',')).join('\n') + '\n';

  // -- sort
  const number = text => {
    const found = text.replace(/[\s,]/g, '').replace(/\u2212/g, '-').match(/^[^\d-]?(-?\d*\.?\d+(?:e[-+]?\d+)?)/i);
    return found ? Number(found[1]) : NaN;
  };
  const sorter = (table, head) => {
    const at = head.cellIndex;
    const named = head.textContent;
    head.textContent = '';
    head.append(button('sort', named, () => {
      const body = table.tBodies[0];
      const numeric = head.classList.contains('n');
      const before = head.getAttribute('aria-sort');
      const rise = before ? before === 'descending' : !numeric; // numbers: the largest first
      const value = row => {
        const text = words(row.cells[at]);
        return numeric ? number(text) : text.toLowerCase();
      };
      const rows = [...body.rows].map((row, place) => [value(row), place, row]);
      const missing = entry => numeric ? Number.isNaN(entry) : entry === '';
      rows.sort(([a, i], [b, j]) => {
        if (missing(a) || missing(b)) return missing(a) - missing(b) || i - j;
        const order = numeric ? a - b : a.localeCompare(b, undefined, { numeric: true });
        return (rise ? order : -order) || i - j;
      });
      for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort');
      head.setAttribute('aria-sort', rise ? 'ascending' : 'descending');
      body.append(...rows.map(entry => entry[2]));
    }));
  };

  // -- filter
  const chips = (table, kind) => {
    const rows = [...table.tBodies[0].rows];
    const kinds = [...new Set(rows.map(kind))].filter(Boolean);
    if (kinds.length < 2) return;
    const row = make('div', 'tools chips');
    row.setAttribute('role', 'group');
    row.setAttribute('aria-label', 'Show only');
    const show = chosen => {
      for (const one of rows) one.hidden = chosen !== '' && kind(one) !== chosen;
      for (const chip of row.children) chip.setAttribute('aria-pressed', String(chip.value === chosen));
    };
    for (const name of ['', ...kinds]) {
      const count = name ? rows.filter(one => kind(one) === name).length : rows.length;
      const chip = button('chip', (name || 'All') + ' ' + count, () => show(name));
      chip.value = name;
      chip.setAttribute('aria-pressed', String(!name));
      row.append(chip);
    }
    (table.closest('.scroll') || table).before(row);
  };
  const finder = table => {
    const input = make('input', 'find');
    input.type = 'search';
    input.placeholder = 'Filter rows';
    input.setAttribute('aria-label', 'Filter rows: ' + words(table.caption || table));
    input.addEventListener('input', () => {
      const wanted = input.value.toLowerCase();
      for (const row of table.tBodies[0].rows)
        row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
    return input;
  };

  for (const code of document.querySelectorAll('main pre')) {
    const tools = make('div', 'tools');
    tools.append(copier('Copy', () => code.innerText));
    code.after(tools);
  }
  for (const table of document.querySelectorAll('main table')) {
    const rows = table.tBodies[0].rows.length;
    if (table.classList.contains('findings')) {
      chips(table, row => words(row.cells[0]));
    } else if (table.classList.contains('compare')) {
      chips(table, row => {
        const changes = row.querySelectorAll('.change');
        return changes.length === 1 ? words(changes[0]).replace(/^\S /, '') : '';
      });
    } else if (rows > 2) {
      for (const head of [...table.tHead.rows[0].cells]) if (head.tagName === 'TH' && head.textContent) sorter(table, head);
    }
    const tools = make('div', 'tools');
    if (rows > 20 && !table.classList.contains('compare')) tools.append(finder(table));
    tools.append(copier('Copy as CSV', () => csv(table)));
    (table.closest('.scroll') || table).after(tools);
  }
})();
