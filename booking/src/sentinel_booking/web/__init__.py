"""The pages. Views hold no SQL."""

# One line for each module; each has a blueprint named `bp`.
BLUEPRINT_MODULES: tuple[str, ...] = (
    "frame",
    "sign_in",
    "matrix",
    "book",
    "reservations",
    "keys",
    "nodes",
    "alerts",
    "runbooks",
    "users",
    "audit",
)
