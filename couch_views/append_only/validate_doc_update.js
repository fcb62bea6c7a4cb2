// Refuses to change or delete an event of the history, whoever the client is: (new document, old document or null)
(function (doc, old) {
  function refuse(why) { throw({forbidden: 'kazoo_ips: ' + why}); }

  if (doc._id.indexOf('_design/') === 0) return;
  if (old && !old._deleted) refuse('an event of the history never changes');
  if (doc._deleted) refuse('an event of the history is never deleted');
  var subject = /^pool\./.test(doc.event) ? 'zone' : 'ip';
  ['id', subject, 'event'].forEach(function (field) {
    if (typeof doc[field] !== 'string' || doc[field] === '') refuse(field + ' must be a text');
  });
  if (typeof doc.at !== 'number' || doc.at % 1 !== 0) refuse('at must be a time in Gregorian seconds');
});
