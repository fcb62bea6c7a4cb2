// Accounts below each account: [ancestor, account] -> name
(function (doc) {
  if (doc.pvt_type !== 'account' || doc.pvt_deleted || !Array.isArray(doc.pvt_tree)) return;
  doc.pvt_tree.forEach(function (ancestor) { emit([ancestor, doc._id], doc.name || ''); });
});
