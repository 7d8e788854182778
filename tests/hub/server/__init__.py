"""A loopback server of the Hugging Face Hub's protocol, for tests.

Good enough for the real `huggingface_hub` client, and able to misbehave:

    with HubServer(uploads="xet") as server:
        api = HfApi(endpoint=server.endpoint, token=server.token)
        server.faults.lose_response("commit")

Rooms: `app` (listeners), `routing` (the table of routes), `repos`, `models`, `files`, `commits`,
`xet_tokens` (routes), `hub` (users and rules), `store` (repos, as git keeps them), `card` (what
the Hub reads out of a README), `xet` (storage for hf_xet), `faults` (ways to misbehave), `wire`
(requests and answers). Standard library only, but for PyYAML, and hf_xet where `uploads="xet"`.

Not there: datasets and spaces, pull requests, discussions, multipart LFS, super-squash. A 401
for a repo that is hidden or missing carries `X-Error-Code: RepoNotFound`, because the client
takes a bare 401 as such over https only.
"""

from .app import HubServer
from .faults import BYTES, LISTINGS, Fault, Faults
from .wire import Request, Response

__all__ = ["BYTES", "LISTINGS", "Fault", "Faults", "HubServer", "Request", "Response"]
