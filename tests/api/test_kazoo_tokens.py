"""Tokens and logins, compared with those of a running Kazoo."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from jwt.algorithms import RSAAlgorithm
from webtest import TestApp

from kazoo_ips.app import Instance
from tests.api.couchdb import account_database
from tests.api.recorded import (
    ANN,
    DATABASES,
    LOGINS,
    MASTER,
    SUB_ONE,
    SUB_THREE,
    SUB_TWO,
    THEN,
    Kazoo,
    decode,
    document,
    login,
    token,
)
from tests.api.replies import failure, success
from tests.timing import quickest

ANNS = token("user_auth s1admin")
[KEY_DOCUMENT] = DATABASES["system_auth"]
PEM = base64.b64decode(KEY_DOCUMENT["_attachments"]["private_key.pem"]["data"])
KEY = load_pem_private_key(PEM, password=None)
assert isinstance(KEY, rsa.RSAPrivateKey)
CLUSTER_SECRET = document("system_config", "auth")["default"]["secret_for_user_signature"]
SUB_ONES = f"/v2/accounts/{SUB_ONE}/ips/zones"


def accepted(api: TestApp, given: str) -> None:
    reply = api.get(SUB_ONES, headers={"X-Auth-Token": given}, status=200)
    success(reply, given)


def refused(api: TestApp, given: str) -> None:
    reply = api.get(SUB_ONES, headers={"X-Auth-Token": given}, status=401)
    data = failure(reply, given, "invalid_credentials")
    assert data == {"message": "invalid credentials"}


# Tokens of Kazoo


@pytest.mark.parametrize("name", [each["name"] for each in LOGINS])
def test_a_token_that_kazoo_issued_is_accepted(kazoo: Kazoo, name: str) -> None:
    given, account_id = token(name), login(name)["reply"]["data"]["account_id"]
    path = f"/v2/accounts/{account_id}/ips/assigned"
    reply = kazoo.api.get(path, headers={"X-Auth-Token": given}, status=200)
    success(reply, given, page_size=len(reply.json["data"]))


def test_a_token_of_kazoos_master_account_is_the_operators(kazoo: Kazoo) -> None:
    masters = {"X-Auth-Token": token("user_auth ok by realm")}
    kazoo.api.get("/v2/ips", headers=masters, status=200)
    kazoo.api.get(SUB_ONES, headers=masters, status=200)
    for name in ("user_auth s1admin", "user_auth s1user", "api_auth sub1"):
        kazoo.api.get("/v2/ips", headers={"X-Auth-Token": token(name)}, status=403)


def test_kazoos_token_opens_its_own_account_only(kazoo: Kazoo) -> None:
    path = f"/v2/accounts/{SUB_TWO}/ips"
    kazoo.api.get(path, headers={"X-Auth-Token": ANNS}, status=403)
    kazoo.api.get(path, headers={"X-Auth-Token": token("user_auth s2admin")}, status=200)


def test_kazoos_token_expires_to_the_second(kazoo: Kazoo) -> None:
    expires = decode(ANNS.split(".")[1])["exp"]
    accepted(kazoo.at(expires - 1), ANNS)
    refused(kazoo.at(expires), ANNS)


# Tokens of ours


@pytest.mark.parametrize("name", [each["name"] for each in LOGINS])
def test_a_login_that_kazoo_accepted_gives_a_token_with_the_same_header_and_claims(
    kazoo: Kazoo, name: str
) -> None:
    recorded = login(name)
    head, claims, _ = recorded["reply"]["auth_token"].split(".")
    api = kazoo.at(decode(claims)["exp"] - 3600)
    reply = api.put_json(recorded["path"], recorded["body"], status=201)
    made = reply.json["auth_token"]
    our_head, our_claims, _ = made.split(".")
    assert decode(our_head) == decode(head)
    assert decode(our_claims) == decode(claims)
    jwt.decode(made, KEY.public_key(), ["RS256"], {"verify_exp": False}, issuer="kazoo")


@pytest.mark.parametrize("name", [each["name"] for each in LOGINS])
def test_a_login_returns_the_same_account_data_as_kazoo(kazoo: Kazoo, name: str) -> None:
    recorded = login(name)
    reply = kazoo.api.put_json(recorded["path"], recorded["body"], status=201)
    data, wanted = success(reply, reply.json["auth_token"]), recorded["reply"]["data"]
    ours = {"capabilities", "cluster_id"}  # members of the node, not of the account
    assert {k: v for k, v in data.items() if k not in ours} == {
        k: v for k, v in wanted.items() if k not in ours
    }


def test_a_token_of_the_service_is_accepted_until_it_expires(kazoo: Kazoo) -> None:
    recorded = login("user_auth s1admin")
    reply = kazoo.api.put_json(recorded["path"], recorded["body"], status=201)
    made = reply.json["auth_token"]
    assert decode(made.split(".")[1])["exp"] == THEN + 3600
    accepted(kazoo.api, made)
    accepted(kazoo.at(THEN + 3599), made)
    refused(kazoo.at(THEN + 3600), made)


def test_the_lifetime_of_a_token_is_a_setting(kazoo: Kazoo) -> None:
    recorded = login("user_auth s1admin")
    api = kazoo.at(THEN, token_lifetime=60)
    made = api.put_json(recorded["path"], recorded["body"], status=201).json["auth_token"]
    assert decode(made.split(".")[1])["exp"] == THEN + 60


def test_a_key_pair_is_created_if_the_database_has_none(
    databases: Any, services: Instance, alice: Any
) -> None:
    key_id = databases.get("system_config", "auth")["default"]["system_key"]
    made = databases.get("system_auth", key_id)
    assert decode(alice.token.split(".")[0]) == {"alg": "RS256", "typ": "JWT", "kid": key_id}
    wanted = {k: v for k, v in KEY_DOCUMENT.items() if k not in ("pvt_node", "pvt_document_hash")}
    assert made.keys() == wanted.keys()
    assert made["pvt_type"] == "system_key"
    assert made["_attachments"].keys() == {"private_key.pem"}


# Tokens of others


def sign(claims: dict[str, Any], key: Any = None, **head: Any) -> str:
    """Return a token signed with the recorded key, or with another one."""
    given = {"alg": "RS256", "typ": "JWT", "kid": KEY_DOCUMENT["_id"], **head}
    return jwt.encode(
        claims, key or KEY, given["alg"], headers={k: v for k, v in given.items() if v is not None}
    )


def by_hand(head: dict[str, Any], claims: dict[str, Any], signature: bytes) -> str:
    parts = [json.dumps(head).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(p).rstrip(b"=").decode() for p in parts)


def signed_with_public_key(claims: dict[str, Any]) -> str:
    head = {"alg": "HS256", "typ": "JWT", "kid": KEY_DOCUMENT["_id"]}
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = by_hand(head, claims, b"").rstrip(".")
    signature = hmac.digest(public, signed.encode(), "sha256")
    return by_hand(head, claims, signature)


def identity(secret: str, whose: str) -> str:
    signature = hmac.digest((secret + CLUSTER_SECRET).encode(), whose.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(signature).rstrip(b"=").decode()


CLAIMS = decode(ANNS.split(".")[1])
HEAD, BODY, SIGNATURE = ANNS.split(".")
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
BOB = decode(token("user_auth s2admin").split(".")[1])
APIS = decode(token("api_auth sub1").split(".")[1])


def without(*names: str) -> dict[str, Any]:
    return {k: v for k, v in CLAIMS.items() if k not in names}


BAD: dict[str, Callable[[], str]] = {
    "a megabyte": lambda: "x" * 1_000_000,
    "no dots": lambda: "nonsense",
    "only dots": lambda: "..",
    "a document id": lambda: "0123456789abcdef0123456789abcdef",
    "not base64": lambda: "!.!.!",
    "very long": lambda: "x" * 20_000,
    "no signature": lambda: f"{HEAD}.{BODY}.",
    "half a signature": lambda: f"{HEAD}.{BODY}.{SIGNATURE[:100]}",
    "another's signature": lambda: f"{HEAD}.{BODY}.{token('api_auth sub1').split('.')[2]}",
    "another's body": lambda: f"{HEAD}.{token('api_auth ok').split('.')[1]}.{SIGNATURE}",
    "alg none": lambda: by_hand({"alg": "none", "kid": KEY_DOCUMENT["_id"]}, CLAIMS, b""),
    "alg None": lambda: by_hand({"alg": "None", "kid": KEY_DOCUMENT["_id"]}, CLAIMS, b""),
    "no alg": lambda: by_hand({"kid": KEY_DOCUMENT["_id"]}, CLAIMS, b""),
    "signed with the public key": lambda: signed_with_public_key(CLAIMS),
    "alg RS512": lambda: sign(CLAIMS, alg="RS512"),
    "alg PS256": lambda: sign(CLAIMS, alg="PS256"),
    "another key": lambda: sign(CLAIMS, OTHER_KEY),
    "another kid": lambda: sign(CLAIMS, kid="0" * 32),
    "no kid": lambda: sign(CLAIMS, kid=None),
    "its own key": lambda: sign(CLAIMS, OTHER_KEY, jwk={"kty": "RSA"}, jku="http://example.com"),
    "its own key in whole": lambda: sign(
        CLAIMS, OTHER_KEY, jwk=RSAAlgorithm.to_jwk(OTHER_KEY.public_key(), as_dict=True)
    ),
    "a certificate of its own": lambda: sign(
        CLAIMS, OTHER_KEY, x5u="http://example.com/x", x5c=["MIIB"], x5t="x"
    ),
    "a path for a kid": lambda: sign(CLAIMS, OTHER_KEY, kid="../../../../dev/null"),
    "a kid that is no text": lambda: by_hand(
        {"alg": "RS256", "kid": [KEY_DOCUMENT["_id"]]}, CLAIMS, b"x" * 256
    ),
    "another issuer": lambda: sign({**CLAIMS, "iss": "somebody"}),
    "no issuer": lambda: sign(without("iss")),
    "no expiry": lambda: sign(without("exp")),
    "expiry as text": lambda: sign({**CLAIMS, "exp": str(CLAIMS["exp"])}),
    "expiry null": lambda: sign({**CLAIMS, "exp": None}),
    "expired": lambda: sign({**CLAIMS, "exp": THEN}),
    "no account": lambda: sign(without("account_id")),
    "an account as a list": lambda: sign({**CLAIMS, "account_id": [SUB_ONE]}),
    "an unknown account": lambda: sign({**CLAIMS, "account_id": "f" * 32}),
    "an account that is none": lambda: sign({**CLAIMS, "account_id": "../accounts"}),
    "no identity_sig": lambda: sign(without("identity_sig")),
    "an empty identity_sig": lambda: sign({**CLAIMS, "identity_sig": ""}),
    "identity_sig as a number": lambda: sign({**CLAIMS, "identity_sig": 1}),
    "identity_sig not ascii": lambda: sign({**CLAIMS, "identity_sig": "é"}),
    "another's identity_sig": lambda: sign({**CLAIMS, "identity_sig": BOB["identity_sig"]}),
    "the account's identity_sig": lambda: sign({**CLAIMS, "identity_sig": APIS["identity_sig"]}),
    "identity_sig of an empty secret": lambda: sign({**CLAIMS, "identity_sig": identity("", ANN)}),
    "the user's identity_sig for the account": lambda: sign(without("owner_id")),
    "a user of another account": lambda: sign({**BOB, "account_id": SUB_ONE}),
    "an unknown user": lambda: sign({**CLAIMS, "owner_id": "0" * 32}),
    "the account for a user": lambda: sign({**APIS, "owner_id": SUB_ONE}),
    "a design document for a user": lambda: sign({**CLAIMS, "owner_id": "_design/users"}),
    "an address for a user": lambda: sign({**CLAIMS, "owner_id": "10.1.0.1"}),
    "a user as a number": lambda: sign({**CLAIMS, "owner_id": 7}),
    "claims as a list": lambda: by_hand(decode(HEAD), [CLAIMS], b"x" * 256),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", BAD)
def test_a_forged_token_is_refused(kazoo: Kazoo, name: str) -> None:
    refused(kazoo.api, BAD[name]())


def test_each_forged_token_differs_from_a_valid_one_in_one_claim(kazoo: Kazoo) -> None:
    accepted(kazoo.api, sign(CLAIMS))
    accepted(kazoo.api, sign({**APIS}))
    secret = document(account_database(SUB_ONE), ANN)["pvt_signature_secret"]
    assert identity(secret, ANN) == CLAIMS["identity_sig"]


# Disabled accounts and users


def test_a_changed_signature_secret_ends_the_users_tokens_and_no_others(kazoo: Kazoo) -> None:
    database = account_database(SUB_ONE)
    with kazoo.changed(database, ANN, pvt_signature_secret="0" * 32):
        refused(kazoo.api, ANNS)
        accepted(kazoo.api, token("user_auth s1user"))
        accepted(kazoo.api, token("api_auth sub1"))
    with kazoo.changed(database, SUB_ONE, pvt_signature_secret="0" * 32):
        refused(kazoo.api, token("api_auth sub1"))
        accepted(kazoo.api, ANNS)


def test_an_identity_without_a_secret_has_no_tokens_until_it_logs_in(kazoo: Kazoo) -> None:
    with kazoo.changed(account_database(SUB_ONE), ANN, pvt_signature_secret=None):
        refused(kazoo.api, ANNS)
        refused(kazoo.api, sign({**CLAIMS, "identity_sig": identity("", ANN)}))
        recorded = login("user_auth s1admin")
        reply = kazoo.api.put_json(recorded["path"], recorded["body"], status=201)
        accepted(kazoo.api, reply.json["auth_token"])
        made = kazoo.databases.get(account_database(SUB_ONE), ANN)["pvt_signature_secret"]
        claims = decode(reply.json["auth_token"].split(".")[1])
        assert claims["identity_sig"] == identity(made, ANN)


@pytest.mark.parametrize(
    ("document_id", "fields", "names"),
    [
        (ANN, {"enabled": False}, ["user_auth s1admin"]),
        (ANN, {"pvt_deleted": True}, ["user_auth s1admin"]),
        (SUB_ONE, {"pvt_enabled": False}, ["user_auth s1admin", "api_auth sub1"]),
        (SUB_ONE, {"pvt_deleted": True}, ["user_auth s1admin", "api_auth sub1"]),
        (
            SUB_ONE,
            {"pvt_trial_expires": THEN + 62_167_219_200},
            ["user_auth s1admin", "api_auth sub1"],
        ),
    ],
    ids=["user disabled", "user deleted", "account disabled", "account deleted", "trial expired"],
)
def test_disabled_deleted_and_expired_accounts_have_no_valid_tokens(
    kazoo: Kazoo, document_id: str, fields: dict[str, Any], names: list[str]
) -> None:
    with kazoo.changed(account_database(SUB_ONE), document_id, **fields):
        for name in names:
            refused(kazoo.api, token(name))
            recorded = login(name)
            reply = kazoo.api.put_json(recorded["path"], recorded["body"], status=401)
            assert "auth_token" not in reply.json
            data = failure(reply, None, "invalid_credentials")
            assert data == {"message": "invalid credentials"}
    accepted(kazoo.api, ANNS)


def test_a_trial_account_works_until_it_expires(kazoo: Kazoo) -> None:
    expires = THEN + 62_167_219_200 + 1
    with kazoo.changed(account_database(SUB_ONE), SUB_ONE, pvt_trial_expires=expires):
        accepted(kazoo.api, ANNS)
        refused(kazoo.at(THEN + 1), ANNS)


def test_the_recorded_disabled_account_gets_no_token(kazoo: Kazoo) -> None:
    cy = document(account_database(SUB_THREE), "310d4060e1606adbff56558a2dd074dd")
    account = document(account_database(SUB_THREE), SUB_THREE)
    assert account["pvt_enabled"] is False
    data = {"credentials": cy["pvt_md5_auth"], "account_realm": account["realm"]}
    kazoo.api.put_json("/v2/user_auth", {"data": data}, status=401)
    data = {"api_key": account["pvt_api_key"]}
    kazoo.api.put_json("/v2/api_auth", {"data": data}, status=401)
    claims = {
        "iss": "kazoo",
        "identity_sig": identity(cy["pvt_signature_secret"], cy["_id"]),
        "account_id": SUB_THREE,
        "owner_id": cy["_id"],
        "method": "cb_user_auth",
        "exp": THEN + 3600,
    }
    path, headers = f"/v2/accounts/{SUB_THREE}/ips", {"X-Auth-Token": sign(claims)}
    kazoo.api.get(path, headers=headers, status=401)
    with kazoo.changed(account_database(SUB_THREE), SUB_THREE, pvt_enabled=True):
        kazoo.api.get(path, headers=headers, status=200)


def test_the_operator_still_acts_on_a_disabled_account(kazoo: Kazoo) -> None:
    masters = {"X-Auth-Token": token("user_auth ok by realm")}
    reply = kazoo.api.get(f"/v2/accounts/{SUB_THREE}/ips/assigned", headers=masters, status=200)
    assert [ip["ip"] for ip in reply.json["data"]] == ["10.1.0.2", "10.3.0.1", "10.3.0.2"]


def test_a_revoked_token_stops_working_when_the_cache_expires(
    kazoo: Kazoo,
) -> None:
    api = kazoo.at(THEN, identity_cache=0.3)
    accepted(api, ANNS)
    with kazoo.changed(account_database(SUB_ONE), ANN, enabled=False):
        time.sleep(0.35)
        refused(api, ANNS)


# Logins


def put(api: TestApp, path: str, **data: Any) -> Any:
    return api.put_json(path, {"data": data}, status=401)


ANNS_LOGIN = login("user_auth s1admin")["body"]["data"]
MD5, REALM = ANNS_LOGIN["credentials"], ANNS_LOGIN["account_realm"]
WRONG = {
    "wrong hash": ("/v2/user_auth", {"credentials": "0" * 32, "account_realm": REALM}),
    "unknown realm": (
        "/v2/user_auth",
        {"credentials": MD5, "account_realm": "nobody.example.com"},
    ),
    "unknown name": ("/v2/user_auth", {"credentials": MD5, "account_name": "Nobody"}),
    "another's realm": (
        "/v2/user_auth",
        {"credentials": MD5, "account_realm": "sub2.example.com"},
    ),
    "no account": ("/v2/user_auth", {"credentials": MD5}),
    "only a phone number": ("/v2/user_auth", {"credentials": MD5, "phone_number": "+12025550100"}),
    "md5 as sha": ("/v2/user_auth", {"credentials": MD5, "method": "sha", "account_realm": REALM}),
    "a disabled account": (
        "/v2/user_auth",
        {"credentials": "8794b8349e096cf6a87cce2b25b034b2", "account_realm": "sub3.example.com"},
    ),
    "unknown key": ("/v2/api_auth", {"api_key": "0" * 64}),
    "a key in capitals": (
        "/v2/api_auth",
        {"api_key": login("api_auth sub1")["body"]["data"]["api_key"].upper()},
    ),
    "a key of a disabled account": (
        "/v2/api_auth",
        {"api_key": document("accounts", SUB_THREE)["pvt_api_key"]},
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_every_wrong_login_is_401_with_the_same_text(kazoo: Kazoo, name: str) -> None:
    path, data = WRONG[name]
    reply = put(kazoo.api, path, **data)
    assert failure(reply, None, "invalid_credentials") == {"message": "invalid credentials"}
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")


def test_every_refusal_takes_the_same_time(kazoo: Kazoo) -> None:
    api = kazoo.at(THEN, refusal_time=0.15)
    for path, data in WRONG.values():
        assert 0.15 <= quickest(partial(put, api, path, **data), enough=0.4) < 0.4


@pytest.mark.parametrize(
    "name", ["Sub One", "sub one", "SUBONE", "sub-one!", " Sub  One "], ids=repr
)
def test_an_account_is_found_by_any_spelling_of_its_name(kazoo: Kazoo, name: str) -> None:
    data = {"credentials": MD5, "account_name": name}
    reply = kazoo.api.put_json("/v2/user_auth", {"data": data}, status=201)
    assert reply.json["data"]["account_id"] == SUB_ONE


def test_a_realm_is_found_in_capitals_too(kazoo: Kazoo) -> None:
    data = {"credentials": MD5, "account_realm": "Sub1.Example.COM"}
    reply = kazoo.api.put_json("/v2/user_auth", {"data": data}, status=201)
    assert reply.json["data"]["account_id"] == SUB_ONE


def test_users_log_in_by_sha1_as_well(kazoo: Kazoo) -> None:
    for user in DATABASES[account_database(SUB_ONE)]:
        if user.get("pvt_type") == "user":
            data = {
                "credentials": user["pvt_sha1_auth"],
                "method": "sha",
                "account_realm": REALM,
            }
            reply = kazoo.api.put_json("/v2/user_auth", {"data": data}, status=201)
            assert reply.json["data"]["owner_id"] == user["_id"]


@pytest.mark.parametrize("enabled", [True, False])
def test_users_log_in_with_kazoos_views(kazoo: Kazoo, enabled: bool) -> None:
    database = account_database(SUB_ONE)
    code = "function(doc) { if (doc.enabled && doc.%s) emit(doc.%s, null); }"
    views = {
        "creds_by_md5": {"map": code.replace("%s", "pvt_md5_auth")},
        "creds_by_sha": {"map": code.replace("%s", "pvt_sha1_auth")},
    }
    kazoo.databases.put(database, {"_id": "_design/users", "views": views})
    try:
        with kazoo.changed(database, ANN, enabled=enabled):
            data = {"credentials": MD5, "account_realm": REALM}
            status = 201 if enabled else 401
            kazoo.api.put_json("/v2/user_auth", {"data": data}, status=status)
            put(kazoo.api, "/v2/user_auth", **{**data, "credentials": "0" * 32})
    finally:
        made = kazoo.databases.find(database, "_design/users")
        kazoo.databases.put(database, {**(made or {}), "_deleted": True})


# The place of a token in a request


def basic(text: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_token_may_be_a_bearer_token(kazoo: Kazoo, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {ANNS}"}
    success(kazoo.api.get(SUB_ONES, headers=headers, status=200), ANNS)
    kazoo.api.get(SUB_ONES, headers={"Authorization": f"{scheme} {ANNS}x"}, status=401)


def test_a_token_may_be_in_the_query(kazoo: Kazoo) -> None:
    success(kazoo.api.get(f"{SUB_ONES}?auth_token={ANNS}", status=200), ANNS)
    kazoo.api.get(f"{SUB_ONES}?auth_token=x{ANNS}", status=401)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_token_can_be_in_the_envelope(kazoo: Kazoo, method: str) -> None:
    path, unknown = f"/v2/accounts/{SUB_ONE}/ips", {"ips": ["203.0.113.99"]}
    for given, status in ((ANNS, 400), (f"{ANNS}x", 401)):
        body = json.dumps({"data": unknown, "auth_token": given}).encode()
        reply = kazoo.api.request(path, method=method, body=body, status=status)
        assert reply.json["auth_token"] == given


def test_the_header_comes_before_query_and_envelope(kazoo: Kazoo) -> None:
    headers = {"X-Auth-Token": ANNS}
    reply = kazoo.api.get(f"{SUB_ONES}?auth_token=nonsense", headers=headers, status=200)
    success(reply, ANNS)
    headers = {"X-Auth-Token": "nonsense"}
    kazoo.api.get(f"{SUB_ONES}?auth_token={ANNS}", headers=headers, status=401)


def test_basic_authentication_is_account_and_md5(kazoo: Kazoo) -> None:
    reply = kazoo.api.get(SUB_ONES, headers=basic(f"{SUB_ONE}:{MD5}"), status=200)
    assert "auth_token" not in reply.json
    kazoo.api.get("/v2/ips", headers=basic(f"{SUB_ONE}:{MD5}"), status=403)
    masters = document(account_database(MASTER), "78b698fa4cbfd7c6141538fdece7b5c5")
    credentials = masters["pvt_md5_auth"]
    kazoo.api.get("/v2/ips", headers=basic(f"{MASTER}:{credentials}"), status=200)


@pytest.mark.parametrize(
    "headers",
    [
        basic(f"{SUB_ONE}:{'0' * 32}"),
        basic(f"{SUB_TWO}:{MD5}"),
        basic(f"{'f' * 32}:{MD5}"),
        basic(f"nonsense:{MD5}"),
        basic(f"{SUB_THREE}:8794b8349e096cf6a87cce2b25b034b2"),
        basic(SUB_ONE),
        basic(":"),
        basic("../accounts:x"),
        {"Authorization": "Basic"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic /w=="},
        {"Authorization": "Digest x"},
        {"Authorization": ANNS},
        {"Authorization": "Bearer"},
        {"X-Auth-Token": ""},
    ],
    ids=str,
)
def test_another_authorization_is_401(kazoo: Kazoo, headers: dict[str, str]) -> None:
    reply = kazoo.api.get(SUB_ONES, headers=headers, status=401)
    assert failure(reply, None, "invalid_credentials") == {"message": "invalid credentials"}


def test_basic_authentication_of_a_disabled_user_is_401(kazoo: Kazoo) -> None:
    with kazoo.changed(account_database(SUB_ONE), ANN, enabled=False):
        kazoo.api.get(SUB_ONES, headers=basic(f"{SUB_ONE}:{MD5}"), status=401)
