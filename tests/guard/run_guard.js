// Calls a validate_doc_update function as CouchDB does: with nothing else, on documents that cannot be
// changed. Reads lines of {source, doc, old}. For each it writes a line of {forbidden: text or null}, or
// of {error}.
'use strict';
const readline = require('readline');
const vm = require('vm');

function freeze(value) {
  if (value !== null && typeof value === 'object') Object.values(Object.freeze(value)).forEach(freeze);
  return value;
}

function ask({ source, doc, old }) {
  const validate = vm.runInNewContext(`'use strict';\n${source}`);
  if (typeof validate !== 'function') throw new Error('not a function expression');
  const user = { db: 'dedicated_ips', name: 'admin', roles: ['_admin'] };
  try {
    validate.call({}, freeze(doc), freeze(old), user, {});
    return null;
  } catch (refusal) {
    if (typeof refusal.forbidden !== 'string') throw refusal;
    return refusal.forbidden;
  }
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  let answer;
  try {
    answer = { forbidden: ask(JSON.parse(line)) };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
});
