"""`/api/users`: people, for admins."""

from __future__ import annotations

from apiflask import APIBlueprint
from pydantic import Field

from ..auth import current_actor, require_role
from ..domain.user_names import NAME_PATTERN
from ..models import Role
from ..services.paging import decode_cursor, encode_cursor
from ..services.users import change_user, create_user, get_user, list_users
from .people import DisplayName, Email, UserOut
from .schemas import Body, Out, Page

bp = APIBlueprint("users", __name__, url_prefix="/api/users")


class NewUserIn(Body):
    """Without a password one is generated and answered once."""

    name: str = Field(pattern=NAME_PATTERN)
    role: Role
    display_name: DisplayName = ""
    email: Email | None = None
    password: str | None = Field(default=None, max_length=256)


class NewUserOut(UserOut):
    """`generated_password` is null when the request brought one; it is not shown again."""

    generated_password: str | None


class UserChangesIn(Body):
    """Absent fields stay as they are; only `email` can be cleared with null."""

    display_name: DisplayName = ""
    email: Email | None = None
    role: Role = Role.USER
    is_active: bool = True
    password: str = Field(default="", max_length=256)


class UsersOut(Out):
    """A page of users by name; `next_cursor` is null on the last page."""

    items: list[UserOut]
    next_cursor: str | None


@bp.get("")
@require_role(Role.ADMIN)
@bp.input(Page, location="query")
@bp.output(UsersOut)
def list_all(query_data: Page) -> dict[str, object]:
    """List users by name. Admin."""
    after = decode_cursor(query_data.cursor) if query_data.cursor else ""
    users = list_users(after, query_data.limit)
    is_last = len(users) < query_data.limit
    return {"items": users, "next_cursor": None if is_last else encode_cursor(users[-1].name)}


@bp.post("")
@require_role(Role.ADMIN)
@bp.input(NewUserIn)
@bp.output(NewUserOut, status_code=201)
@bp.doc(responses={409: "The name is taken"})
def create(json_data: NewUserIn) -> NewUserOut:
    """Add a user, who must change the password at the first sign-in. Admin."""
    user, generated = create_user(
        current_actor(),
        name=json_data.name,
        role=json_data.role,
        display_name=json_data.display_name,
        email=json_data.email,
        password=json_data.password,
    )
    shown = UserOut.model_validate(user).model_dump()
    return NewUserOut(**shown, generated_password=generated)


@bp.get("/<name>")
@require_role(Role.ADMIN)
@bp.output(UserOut)
def show(name: str) -> UserOut:
    """Show one user. Admin."""
    return UserOut.model_validate(get_user(name))


@bp.patch("/<name>")
@require_role(Role.ADMIN)
@bp.input(UserChangesIn)
@bp.output(UserOut)
@bp.doc(responses={409: "No active admin would be left"})
def change(name: str, json_data: UserChangesIn) -> UserOut:
    """Change a user; a new password or deactivating ends their sign-ins. Admin."""
    return UserOut.model_validate(change_user(current_actor(), name, json_data.given()))
