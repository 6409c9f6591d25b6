"""What people may do. Each role may do all that those before it may."""

from enum import StrEnum


class Role(StrEnum):
    """The role of a user."""

    VIEWER = "viewer"
    """Sees everything, changes nothing."""
    SUBMITTER = "submitter"
    """Submits jobs, and steers and judges what is in them: cancels, pauses, retries own jobs; stars, rejects, tags."""
    OPERATOR = "operator"
    """Steers everybody's jobs, and the workers."""
    ADMIN = "admin"
    """Makes users, and gives roles."""

    def includes(self, other: "Role") -> bool:
        """Whether this role may do what ``other`` may."""
        ranks = list(Role)
        return ranks.index(self) >= ranks.index(other)
