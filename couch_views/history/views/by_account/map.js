// Events of each account that had the address before or has it after: [account, Gregorian seconds, generation, id] -> the fields of the event
(function (doc) {
  // !code lib/event_value.js
  if (!doc.event || typeof doc.at !== 'number' || doc.event === 'retracted') return;
  var generation = parseInt(doc.revision, 10) || 0;
  var event = eventValue(doc);
  var accounts = [];
  [doc.account_id, doc.before && doc.before.account_id, doc.after && doc.after.account_id].forEach(function (account) {
    if (account && accounts.indexOf(account) < 0) accounts.push(account);
  });
  accounts.forEach(function (account) { emit([account, doc.at, generation, doc._id], event); });
});
