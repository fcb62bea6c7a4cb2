// Documents whose id is not the canonical form of its address: [sort key] -> null
(function (doc) {
  // !code lib/sort_key.js
  // An address as kazoo_ips.model.addresses.canonical spells it.
  function spell(digits) {
    function number(hex) { return parseInt(hex, 16); }
    if (digits.charAt(0) === '4') return digits.slice(1).match(/../g).map(number).join('.');
    var text = digits.slice(1).match(/..../g).map(function (group) { return number(group).toString(16); }).join(':');
    var runs = /\b0(:0)+\b/g;
    var zeros = null;
    for (var run = runs.exec(text); run; run = runs.exec(text)) {
      if (!zeros || run[0].length > zeros[0].length) zeros = run;
    }
    if (!zeros) return text;
    var after = text.slice(zeros.index + zeros[0].length);
    return text.slice(0, zeros.index).replace(/:$/, '') + '::' + after.replace(/^:/, '');
  }
  if (doc.pvt_type !== 'dedicated_ip' || doc.pvt_deleted) return;
  var key = sortKey(doc._id);
  if (key !== null && spell(key) !== doc._id) emit([key], null);
});
