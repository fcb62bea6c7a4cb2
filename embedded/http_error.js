'use strict';

/* An error that a direct route answers: `status`, `name` and `message` are those of CouchDB. */
module.exports = class HTTPError extends Error {
  constructor(status, name, reason) {
    super(reason);
    Object.assign(this, { status, name });
  }
};
