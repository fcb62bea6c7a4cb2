"""The key and the secret with which all tokens of a Kazoo cluster are signed.

The key is an attachment in `system_auth`. Its id and the secret are in `system_config/auth`
(`core/kazoo_auth/src/kz_auth_keys.erl`). They are created by the first process that needs them,
a Kazoo node or this service. Contains no code for tokens.
"""

import base64
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from kazoo_ips.couch.client import Couch
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.model import Outcome

SYSTEM_AUTH = "system_auth"
SYSTEM_CONFIG = "system_config"
_PEM = "private_key.pem"
_TRIES = 3


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An RSA key that signs tokens, its id, and the secret of all identity signatures."""

    id: str
    private: rsa.RSAPrivateKey = field(repr=False)
    identity_secret: str = field(repr=False)


class SigningKeyRepository:
    """Reads and creates the cluster's signing key.

    :param now: the time in Gregorian seconds
    """

    def __init__(self, couch: Couch, now: Callable[[], int]) -> None:
        self._auth = couch.database(SYSTEM_AUTH)
        self._config = couch.database(SYSTEM_CONFIG)
        self._now = now
        self._loaded: dict[str, rsa.RSAPrivateKey] = {}

    def get(self) -> SigningKey:
        """Return the current key. Create it if the database has none.

        :raises DatastoreUnreachable: CouchDB does not take the key
        """
        made = ""
        for _ in range(_TRIES):
            document = self._config.find("auth") or {"_id": "auth", "pvt_type": "config"}
            default = document.get("default", {})
            if "system_key" in default and "secret_for_user_signature" in default:
                key_id = default["system_key"]
                return SigningKey(
                    key_id, self._private(key_id), default["secret_for_user_signature"]
                )
            made = default.get("system_key") or made or self._make()
            wanted = {
                "secret_for_user_signature": secrets.token_hex(16),
                **default,
                "system_key": made,
            }
            # If the write is refused, another process has written a key. The next read finds it.
            self._config.put({**document, "default": wanted})
        raise DatastoreUnreachable("the signing key cannot be written")

    def _private(self, key_id: str) -> rsa.RSAPrivateKey:
        if key_id not in self._loaded:
            key = load_pem_private_key(self._auth.attachment(key_id, _PEM), password=None)
            assert isinstance(key, rsa.RSAPrivateKey)
            self._loaded = {key_id: key}
        return self._loaded[key_id]

    def _make(self) -> str:
        key_id = secrets.token_hex(16)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        document = {
            "_id": key_id,
            "pvt_type": "system_key",
            "pvt_account_id": SYSTEM_AUTH,
            "pvt_account_db": SYSTEM_AUTH,
            "pvt_created": self._now(),
            "pvt_modified": self._now(),
            "_attachments": {
                _PEM: {
                    "content_type": "application/x-pem-file",
                    "data": base64.b64encode(pem).decode(),
                }
            },
        }
        if self._auth.put(document).outcome is not Outcome.DONE:
            raise DatastoreUnreachable("the signing key cannot be written")
        return key_id
