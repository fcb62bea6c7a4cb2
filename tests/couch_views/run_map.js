// Evaluates map functions as CouchDB does: with `emit` only, on documents that cannot be changed.
// Reads lines of {source, docs}. For each it writes a line of {rows: [[[key, value], …], …]}, with one
// list for each document, or of {error}.
'use strict';
const readline = require('readline');
const vm = require('vm');

function freeze(value) {
  if (value !== null && typeof value === 'object') Object.values(Object.freeze(value)).forEach(freeze);
  return value;
}

function run({ source, docs }) {
  let rows = [];
  const context = vm.createContext({ emit: (key, value) => rows.push([key, value]) });
  const map = vm.runInContext(`'use strict';\n${source}`, context);
  if (typeof map !== 'function') throw new Error('not a function expression');
  return docs.map((doc) => {
    rows = [];
    map(freeze(doc));
    return rows;
  });
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  let answer;
  try {
    answer = { rows: run(JSON.parse(line)) };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
});
