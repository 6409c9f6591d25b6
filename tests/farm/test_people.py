"""Users, and the secrets by which they are known."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from farm import people
from farm.errors import ConfigurationError, InvalidSubmissionError, NotFoundError
from farm.models import Activity, ApiToken, LoginLink, LoginSession, User
from farm.roles import Role

PASSWORD = "correct horse battery"
AT_ONCE = 8


@pytest.fixture
def ana(engine: Engine) -> people.Identity:
    return people.add_user(engine, "ana", Role.SUBMITTER, PASSWORD)


def everything_stored(engine: Engine) -> str:
    """All that the tables of people hold, as text."""
    with Session(engine) as session:
        return " ".join(
            str(value)
            for table in (User, LoginSession, LoginLink, ApiToken, Activity)
            for row in session.execute(select(table.__table__)).all()
            for value in row
        )


def actions(engine: Engine) -> list[tuple[str, str, object]]:
    with Session(engine) as session:
        rows = session.scalars(select(Activity).order_by(Activity.id)).all()
        return [(row.actor, row.action, row.details) for row in rows]


def test_roles_include_those_before_them() -> None:
    assert [role for role in Role if Role.OPERATOR.includes(role)] == [Role.VIEWER, Role.SUBMITTER, Role.OPERATOR]


def test_a_password_lets_its_user_in_and_nobody_else(engine: Engine, ana: people.Identity) -> None:
    people.add_user(engine, "ben", Role.VIEWER, "another battery")
    assert people.check_password(engine, "ana", PASSWORD) == ana
    for name, password in [
        ("ana", PASSWORD + " "),
        ("ana", ""),
        ("ben", PASSWORD),
        ("Ana", PASSWORD),
        ("nobody", PASSWORD),
        ("ana\0", PASSWORD),
        ("", ""),
    ]:
        assert people.check_password(engine, name, password) is None, (name, password)


def test_somebody_without_a_password_cannot_log_in_with_any(engine: Engine) -> None:
    people.add_user(engine, "link only", Role.VIEWER)
    assert people.check_password(engine, "link only", "") is None
    assert people.check_password(engine, "link only", "None") is None


def test_no_secret_stands_in_the_database(engine: Engine, ana: people.Identity) -> None:
    token = people.make_token(engine, ana.user_id, "script", by="ana")
    secrets = [
        PASSWORD,
        token,
        people.open_session(engine, ana.user_id, by="ana"),
        people.make_link(engine, ana.user_id, by="ana"),
    ]
    stored = everything_stored(engine)
    assert "$argon2id$" in stored
    assert [secret for secret in secrets if secret in stored] == []
    # What is shown of a token is far from enough to guess the rest.
    assert token[: people.HINT_CHARACTERS] in stored
    assert len(token) - people.HINT_CHARACTERS > 32


@pytest.mark.parametrize("name", ["", " ana", "ana ", "a\nb", "a\0b", "a\u202eb", "x" * 61])
def test_names_that_nobody_could_read_are_refused(engine: Engine, name: str) -> None:
    with pytest.raises(InvalidSubmissionError, match="name"):
        people.add_user(engine, name, Role.VIEWER)


@pytest.mark.parametrize("password", ["", "short", "x" * 1001, "not a text \ud800"])
def test_passwords_that_are_none_are_refused(engine: Engine, ana: people.Identity, password: str) -> None:
    with pytest.raises(InvalidSubmissionError, match="password"):
        people.change_user(engine, ana.user_id, password=password)
    assert people.check_password(engine, "ana", PASSWORD) == ana


def test_a_name_is_given_once_even_if_two_ask_at_once(engine: Engine) -> None:
    together = Barrier(AT_ONCE)

    def add(_: int) -> bool:
        together.wait()
        try:
            people.add_user(engine, "ana", Role.VIEWER)
        except InvalidSubmissionError:
            return False
        return True

    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert sum(pool.map(add, range(AT_ONCE))) == 1


def test_sessions_last_until_they_expire_or_are_closed(engine: Engine, ana: people.Identity) -> None:
    first, second = people.open_session(engine, ana.user_id), people.open_session(engine, ana.user_id)
    assert people.identify_session(engine, first) == people.identify_session(engine, second) == ana
    people.close_session(engine, first)
    assert people.identify_session(engine, first) is None
    with engine.begin() as connection:
        connection.execute(update(LoginSession).values(expires_at=func.now()))
    assert people.identify_session(engine, second) is None
    # The next log-in sweeps them away.
    third = people.open_session(engine, ana.user_id)
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(LoginSession)) == 1
    assert people.identify_session(engine, third) == ana


def test_logging_out_elsewhere_keeps_this_browser_and_other_people(engine: Engine, ana: people.Identity) -> None:
    ben = people.add_user(engine, "ben", Role.VIEWER)
    here, there, bens = (people.open_session(engine, who.user_id) for who in (ana, ana, ben))
    assert people.close_other_sessions(engine, ana.user_id, here) == 1
    assert people.identify_session(engine, here) == ana
    assert people.identify_session(engine, there) is None
    assert people.identify_session(engine, bens) == ben


def test_a_link_works_once_even_if_many_ask_at_once(engine: Engine, ana: people.Identity) -> None:
    link = people.make_link(engine, ana.user_id)
    together = Barrier(AT_ONCE)

    def redeem(_: int) -> people.Identity | None:
        together.wait()
        return people.redeem_link(engine, link)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(redeem, range(AT_ONCE)))
    assert sorted(found, key=str) == sorted([ana, *[None] * (AT_ONCE - 1)], key=str)


def test_a_link_grows_old(engine: Engine, ana: people.Identity) -> None:
    link = people.make_link(engine, ana.user_id)
    with engine.begin() as connection:
        connection.execute(update(LoginLink).values(expires_at=func.now()))
    assert people.redeem_link(engine, link) is None


def test_a_link_for_nobody_is_not_made(engine: Engine) -> None:
    with pytest.raises(NotFoundError):
        people.make_link(engine, 4711)


def test_tokens_work_until_they_are_revoked(engine: Engine, ana: people.Identity) -> None:
    ben = people.add_user(engine, "ben", Role.VIEWER)
    token, other = people.make_token(engine, ana.user_id, " script "), people.make_token(engine, ana.user_id, "other")
    assert people.identify_token(engine, token) == ana
    with Session(engine) as session:
        row = session.scalars(select(ApiToken).where(ApiToken.name == "script")).one()
        assert row.last_used_at is not None
        unused = session.scalars(select(ApiToken).where(ApiToken.name == "other")).one()
        assert unused.last_used_at is None
    with pytest.raises(NotFoundError):
        people.revoke_token(engine, row.id, ben.user_id)
    assert people.identify_token(engine, token) == ana
    assert people.revoke_token(engine, row.id, ana.user_id) == "script"
    assert people.identify_token(engine, token) is None
    assert people.identify_token(engine, other) == ana


@pytest.mark.parametrize("secret", ["", "farm_", "x" * 10_000, "\0", "\ud800"])
def test_what_is_no_secret_is_nobodys(engine: Engine, ana: people.Identity, secret: str) -> None:
    assert people.identify_token(engine, secret) is None
    assert people.identify_session(engine, secret) is None
    assert people.redeem_link(engine, secret) is None


def test_who_is_locked_out_is_out_at_once_and_everywhere(engine: Engine, ana: people.Identity) -> None:
    token, session = people.make_token(engine, ana.user_id, "script"), people.open_session(engine, ana.user_id)
    link = people.make_link(engine, ana.user_id)
    people.change_user(engine, ana.user_id, disabled=True)
    assert people.identify_token(engine, token) is None
    assert people.identify_session(engine, session) is None
    assert people.redeem_link(engine, link) is None
    assert people.check_password(engine, "ana", PASSWORD) is None
    people.change_user(engine, ana.user_id, disabled=False)
    assert people.check_password(engine, "ana", PASSWORD) == ana
    assert people.identify_token(engine, token) == ana
    # Browsers do not come back by themselves.
    assert people.identify_session(engine, session) is None
    assert people.redeem_link(engine, link) is None


def test_another_password_logs_out_everywhere(engine: Engine, ana: people.Identity) -> None:
    session = people.open_session(engine, ana.user_id)
    people.change_user(engine, ana.user_id, password="another battery")
    assert people.identify_session(engine, session) is None
    assert people.check_password(engine, "ana", PASSWORD) is None
    assert people.check_password(engine, "ana", "another battery") == ana


def test_ones_own_password_is_changed_by_who_knows_it(engine: Engine, ana: people.Identity) -> None:
    here, there = people.open_session(engine, ana.user_id), people.open_session(engine, ana.user_id)
    with pytest.raises(InvalidSubmissionError, match="present"):
        people.change_own_password(engine, ana, "a guess, a guess", "another battery", here)
    assert people.identify_session(engine, there) == ana
    people.change_own_password(engine, ana, PASSWORD, "another battery", here)
    assert people.check_password(engine, "ana", "another battery") == ana
    assert people.identify_session(engine, here) == ana
    assert people.identify_session(engine, there) is None


def test_a_first_password_takes_no_present_one(engine: Engine) -> None:
    who = people.add_user(engine, "by link", Role.VIEWER)
    people.change_own_password(engine, who, "", PASSWORD, "")
    assert people.check_password(engine, "by link", PASSWORD) == who


def test_the_last_administrator_stays_one(engine: Engine) -> None:
    first = people.add_user(engine, "first", Role.ADMIN)
    for changes in ({"role": Role.OPERATOR}, {"disabled": True}):
        with pytest.raises(InvalidSubmissionError, match="last administrator"):
            people.change_user(engine, first.user_id, **changes)
    people.change_user(engine, first.user_id, role=Role.ADMIN, password=PASSWORD)
    second = people.add_user(engine, "second", Role.ADMIN)
    people.change_user(engine, second.user_id, disabled=True)
    # One who is locked out could not help.
    with pytest.raises(InvalidSubmissionError, match="last administrator"):
        people.change_user(engine, first.user_id, role=Role.VIEWER)
    people.change_user(engine, second.user_id, disabled=False)
    people.change_user(engine, first.user_id, role=Role.VIEWER)


def test_two_administrators_cannot_demote_each_other_at_once(engine: Engine) -> None:
    admins = [people.add_user(engine, name, Role.ADMIN) for name in ("one", "two")]
    together = Barrier(2)

    def demote(user_id: int) -> bool:
        together.wait()
        try:
            people.change_user(engine, user_id, role=Role.VIEWER)
        except InvalidSubmissionError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(demote, [who.user_id for who in admins])) == 1


def test_changing_nobody_is_not_found(engine: Engine) -> None:
    for changes in ({}, {"disabled": True}, {"password": PASSWORD}):
        with pytest.raises(NotFoundError):
            people.change_user(engine, 4711, **changes)


def test_what_is_done_to_people_is_logged_with_who_did_it(engine: Engine) -> None:
    ana = people.add_user(engine, "ana", Role.ADMIN, by="root")
    people.add_user(engine, "ben", Role.ADMIN)  # by the farm itself: not logged
    people.change_user(engine, ana.user_id, role=Role.VIEWER, password=PASSWORD, by="ben")
    people.change_user(engine, ana.user_id, disabled=True, by="ben")
    people.change_user(engine, ana.user_id, disabled=False, by="ben")
    people.make_token(engine, ana.user_id, "script", by="ana")
    with Session(engine) as session:
        token_id = session.scalars(select(ApiToken.id)).one()
    people.revoke_token(engine, token_id, ana.user_id, by="ana")
    people.make_link(engine, ana.user_id, by="ben")
    people.open_session(engine, ana.user_id, by="ana")
    with pytest.raises(InvalidSubmissionError):
        people.add_user(engine, "ana", Role.VIEWER, by="root")
    assert actions(engine) == [
        ("root", "user.add", {"user": "ana", "role": "admin"}),
        ("ben", "user.role", {"user": "ana", "role": "viewer"}),
        ("ben", "user.password", {"user": "ana"}),
        ("ben", "user.disable", {"user": "ana"}),
        ("ben", "user.enable", {"user": "ana"}),
        ("ana", "token.make", {"token": "script"}),
        ("ana", "token.revoke", {"token": "script"}),
        ("ben", "user.link", {"user": "ana"}),
        ("ana", "user.login", None),
    ]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_others_reach_the_dashboard_only_when_somebody_could_log_in(engine: Engine, host: str) -> None:
    people.add_user(engine, "by link", Role.ADMIN)
    with pytest.raises(ConfigurationError, match="farm user add"):
        people.require_users(engine, host)
    for private in ("127.0.0.1", "::1", "localhost"):
        people.require_users(engine, private)
    ana = people.add_user(engine, "ana", Role.VIEWER, PASSWORD)
    people.require_users(engine, host)
    people.change_user(engine, ana.user_id, disabled=True)
    with pytest.raises(ConfigurationError):
        people.require_users(engine, host)
