"""The services' refusals in the page's language. It decides none.

Services refuse in English, for programs too. What a page may show of it is listed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .texts import N_, _

_TEXTS: tuple[str, ...] = (
    # Titles of error pages.
    N_("The request cannot be served"),
    N_("The input is not valid"),
    N_("Sign in first"),
    N_("Your role does not permit this"),
    N_("Change your password first"),
    N_("The request does not come from our own page"),
    N_("No such object"),
    N_("In conflict with what is there"),
    N_("Changed by somebody else in the meantime"),
    N_("Too many attempts"),
    N_("Not available at present"),
    N_("It is booked already"),
    N_("This is a private key"),
    N_("Internal error"),
    N_("Not Found"),
    N_("Method Not Allowed"),
    N_("Bad Request"),
    N_("Request Entity Too Large"),
    # Their details.
    N_(
        "The requested URL was not found on the server. If you entered the URL manually "
        "please check your spelling and try again."
    ),
    N_("The method is not allowed for the requested URL."),
    N_("The data value transmitted exceeds the capacity limit."),
    N_("The address holds a NUL character."),
    N_("The database does not answer; nothing was changed. Try again soon."),
    N_("The database is too busy; nothing was changed. Try again soon."),
    N_("A value of the request cannot be stored."),
    N_("The server failed to serve this; its log says why."),
    N_("This address is not open to anybody."),
    N_("There is no sign-in with this request."),
    N_("The sign-in has ended."),
    N_("The request's token is not valid."),
    N_("The CSRF token is missing or wrong; load the page again."),
    N_("The request was sent by a page of another site."),
    N_("Too many attempts; try again in %(seconds)s seconds."),
    N_("This needs the role %(needed)s or above; yours is %(role)s."),
    # People.
    N_("The name or the password is wrong."),
    N_("There is no such user."),
    N_("There is a user named %(name)s already."),
    N_("%(name)s is the last active admin; make somebody else one first."),
    N_("The password was changed at the same moment; try again."),
    N_("is not your present password"),
    N_("must differ from the old one"),
    N_("must have at least %(count)s characters"),
    N_("must have at most %(count)s characters"),
    N_("must not be the name"),
    N_(
        "must begin with a small letter, hold only small letters, digits, _ and -, and "
        "have at most 32 characters"
    ),
    N_("belongs to the system; choose another one"),
    # Nodes.
    N_("There is no node %(name)s."),
    N_("There is already a node %(name)s."),
    N_("The node cannot be added."),
    N_("The node cannot be changed so."),
    N_("%(name)s has %(count)s reservations that run or come: release them first."),
    N_("letters, digits, '.', '_' and '-', at most 63"),
    N_("lower-case letters, digits, '.', '_' and '-', at most 63"),
    N_("not a host name or an IP address"),
    N_("one is listed twice"),
    N_("a registered node needs one"),
    N_("at most %(count)s"),
    # Reservations.
    N_("The reservation cannot be made."),
    N_("The reservation cannot be changed so."),
    N_("There is no reservation %(id)s."),
    N_("The reservation has ended."),
    N_("Only its holder and operators may change a reservation."),
    N_("Only operators book for somebody else."),
    N_("Only operators book maintenance."),
    N_("Your role may look, but not book."),
    N_("Somebody else has booked it at this moment."),
    N_("The reservation was changed since: read it again."),
    N_("Send If-Match with the ETag of what you have seen."),
    N_("%(holder)s has booked it from %(starts)s to %(ends)s."),
    N_("there is no such node"),
    N_("there is no such user"),
    N_("the account is closed"),
    N_("the role may look, but not book"),
    N_("not a device of %(node)s"),
    N_("%(node)s does not report it at present"),
    N_("lies in the past"),
    N_("must lie behind the start"),
    N_("must lie behind 'from'"),
    N_("has passed already; to end it now, release it"),
    N_("the year must lie between 2000 and 2199"),
    N_("a reservation lasts one minute at least"),
    N_("a reservation lasts %(hours)s hours at most"),
    N_("more than %(days)s days ahead"),
    N_("at most %(days)s days behind 'from'"),
    N_("at most %(count)s characters"),
    N_("one line of printable characters only"),
    N_("name at least one device, or the whole node"),
    N_("name devices or the whole node, not both"),
    N_("named twice"),
    N_("was used before with another body"),
    N_("1 to %(count)s characters"),
    N_("printable ASCII characters only"),
    N_("not one that was given out"),
    # Keys.
    N_("You have no such key."),
    N_("You have %(count)s keys; remove one first."),
    N_("The key %(fingerprint)s is registered already; a key belongs to one person."),
    N_(
        "This is a private key, which must never leave your computer. It was not stored, "
        "but treat it as compromised: make a new pair with ssh-keygen, remove this one "
        "wherever it is used, and send only the new public half (the file that ends in "
        ".pub)."
    ),
    N_("empty"),
    N_("not an SSH public key; one begins with a type such as ssh-ed25519"),
    N_("more than one line; send one key at a time"),
    N_("only the key's type; the key itself is missing"),
    N_("options before the key's type; send the key only"),
    N_("not valid base64; was it cut or wrapped?"),
    N_("in the SSH2 format; convert it with: ssh-keygen -i -f FILE"),
    N_("a certificate; send the public key that it was made for"),
    N_("a DSA key; sshd no longer takes them. Make one with: ssh-keygen -t ed25519"),
    N_("an RSA key of %(bits)s bits; at least %(least)s are needed"),
    N_("an RSA key of %(bits)s bits; sshd takes at most %(most)s"),
    N_("the key inside is not of the type %(type)s that its line says"),
    N_("damaged: it holds too little or too much"),
    N_("damaged: its numbers are not a key of this type"),
    N_("damaged: its numbers are not in their shortest form"),
    N_("damaged: the security key's application is not plain text"),
)


def say(text: str) -> str:
    """Return a service's text in the page's language; one that is not known as it is."""
    for message, pattern in _PATTERNS:
        found = pattern.fullmatch(text)
        if found:
            return _(message, **found.groupdict())
    return text


def title_of(problem: object) -> str:
    """Return the heading of an error page."""
    return say(getattr(problem, "title", ""))


def _pattern(message: str) -> re.Pattern[str]:
    """Return what matches the message with anything in its places."""
    parts = re.split(r"%\((\w+)\)s", message)
    parts[::2] = [re.escape(part) for part in parts[::2]]
    parts[1::2] = [f"(?P<{name}>.+)" for name in parts[1::2]]
    return re.compile("".join(parts), re.DOTALL)


def _compiled(messages: Iterable[str]) -> list[tuple[str, re.Pattern[str]]]:
    return [(message, _pattern(message)) for message in messages]


_PATTERNS = _compiled(_TEXTS)
