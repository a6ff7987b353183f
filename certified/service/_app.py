"""The application: few resources, ids in bodies only, answers that say nothing of the model."""

import threading
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from certified.errors import CertifiedError, InvalidRequest, Locked, MissingExtra, StorageFailed
from certified.service._page import PAGE
from certified.service._tokens import role_of
from certified.vault import Request, Vault

try:
    import fastapi
    from fastapi import Depends, FastAPI, Header, HTTPException
    from fastapi import Path as InPath
    from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
    from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
    from pydantic import BaseModel, Field
except ImportError:
    raise MissingExtra("The service", "fastapi", "service") from None

__all__ = ["create_app"]

_TEXT = r"^[^\x00-\x1f\x7f]+$"
_Key = Annotated[str, InPath(min_length=1, max_length=200)]
_Text = Annotated[str, Field(min_length=1, max_length=200, pattern=_TEXT)]
_Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Time = Annotated[str, Field(pattern=r"^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z$")]
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "the request cannot be carried out as it stands"},
    401: {"description": "no token, or one that is not known"},
    403: {"description": "the role of the token does not allow it"},
    404: {"description": "there is no such thing"},
    409: {"description": "the key names another request, or another process works on the vault"},
    503: {"description": "the storage failed"},
}


class Submission(BaseModel):
    """A request for deletion."""

    ids: Annotated[
        list[_Text] | list[Annotated[int, Field(ge=-(2**63), lt=2**63)]], Field(min_length=1, max_length=10_000)
    ]
    basis: _Text = "GDPR Art. 17(1)"
    received: _Time | None = None
    due: _Time | None = None
    actor: _Text = "not stated"


class Made(BaseModel):
    """A request as the vault remembers it."""

    key: str
    status: str
    reason: str
    received: str
    due: str
    decided: str | None
    removed: str | None
    erased: str | None
    basis: str
    actor: str
    subjects: int | None
    absent: int | None
    overdue: bool


def create_app(path: str | Path) -> Any:
    """Return the application that serves the vault in a folder."""
    folder = Path(path)
    desks = _Desk(folder), _Desk(folder)  # one to take requests, so that they need not wait for the one that works
    taking, working = desks

    @asynccontextmanager
    async def lifespan(_: Any) -> Any:
        yield
        for desk in desks:
            desk.close()

    app = FastAPI(title="certified", version="1", lifespan=lifespan, responses=_ERRORS, docs_url=None, redoc_url=None)
    app.add_exception_handler(CertifiedError, _told)
    bearer = HTTPBearer(auto_error=False)

    def allowed(*roles: str) -> Callable[..., str]:
        def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> str:
            role = None if given is None else role_of(folder, given.credentials)
            if role is None:
                raise HTTPException(401, "A bearer token is needed.", {"WWW-Authenticate": "Bearer"})
            if role not in roles:
                raise HTTPException(403, f"The role {role!r} does not allow this.")
            return role

        return check

    anybody, officer, reader = (allowed("submit", "officer", "audit"), allowed("officer"), allowed("officer", "audit"))

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> str:
        return PAGE

    @app.post("/requests", status_code=202, dependencies=[Depends(allowed("submit", "officer"))])
    def submit(
        given: Submission,
        idempotency_key: Annotated[str, Header(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._:-]+$")],
    ) -> Made:
        """Record a request; it is on disk when this answers. The same key again is the same request."""
        with taking.vault() as vault:
            try:
                ids = vault.as_held(given.ids)
                return _made(vault.request(ids, key=idempotency_key, **given.model_dump(exclude={"ids"})))
            except InvalidRequest as error:
                raise HTTPException(409 if "other ids than before" in str(error) else 400, str(error)) from None

    @app.get("/requests", dependencies=[Depends(anybody)])
    def listed(status: str | None = None) -> list[Made]:
        """List requests, or those of a status."""
        with taking.vault() as vault:
            return [_made(one) for one in vault.requests(status)]

    @app.get("/requests/{key}", dependencies=[Depends(anybody)])
    def found(key: _Key) -> Made:
        """Look up a request."""
        with taking.vault() as vault:
            return _made(_or_404(lambda: vault.find(key)))

    @app.get("/requests/{key}/certificate", dependencies=[Depends(reader)])
    def certificate(key: _Key) -> dict[str, str]:
        """Fetch the certificate of a request: names and contents of its files."""
        with taking.vault() as vault:
            return _or_404(lambda: vault.document("controller", request=key)).files()

    @app.post("/requests/{key}/receipts", dependencies=[Depends(officer)])
    def receipts(key: _Key) -> list[dict[str, str]]:
        """Hand out the receipts of a request, once."""
        with taking.vault() as vault:
            return [signed.files() for signed in _or_404(lambda: vault.hand_out(key))]

    @app.post("/process", dependencies=[Depends(officer)])
    def process() -> dict[str, Any]:
        """Carry out what waits."""
        with working.vault() as vault:
            done = vault.process()
        return {"subjects": done.subjects, "requests": [one.key for one in done.requests], "sealed": done.sealed}

    @app.get("/status", dependencies=[Depends(reader)])
    def status() -> dict[str, Any]:
        """What is held, open and overdue."""
        with taking.vault() as vault:
            return vault.status()

    @app.get("/ledger/head", response_class=PlainTextResponse, dependencies=[Depends(reader)])
    def head() -> str:
        """The signed head of the log."""
        with taking.vault() as vault:
            return str(vault.ledger.checkpoint())

    return app


class _Desk:
    """A vault that is open, for one thread at a time; opened again after a failure of the storage."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._vault: Vault | None = self._opened()

    @contextmanager
    def vault(self) -> Iterator[Vault]:
        with self._lock:
            if self._vault is None:
                self._vault = self._opened()
            try:
                yield self._vault
            except StorageFailed:
                self.close()
                raise

    def _opened(self) -> Vault:
        vault = Vault.open(self._folder)
        vault.as_held([])
        return vault

    def close(self) -> None:
        """Close the vault."""
        if self._vault is not None:
            self._vault.close()
            self._vault = None


def _made(one: Request) -> Made:
    return Made(**{key: value for key, value in asdict(one).items() if key != "rows"}, overdue=one.overdue)


def _or_404(look: Callable[[], Any]) -> Any:
    try:
        return look()
    except InvalidRequest as error:
        raise HTTPException(404, str(error)) from None


def _told(_: fastapi.Request, error: Exception) -> JSONResponse:
    code = 409 if isinstance(error, Locked) else 503 if isinstance(error, StorageFailed) else 400
    return JSONResponse({"detail": str(error)}, code)
