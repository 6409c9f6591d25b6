"""Every route of the dashboard as every role and as a stranger: who is let in, and who is not."""

import re
from collections.abc import Iterator

import pytest
from flask import Flask
from sqlalchemy import Engine

from farm import people
from farm.roles import Role

#: Which role each route takes at least. Whoever makes a route says here who it is for.
TAKES: dict[Role | None, set[str]] = {
    None: {
        "GET api_reference.openapi",
        "GET health.healthz",
        "GET health.readyz",
        "GET login.enter",
        "GET login.form",
        "GET reference.index",
        "GET signed.picture",
        "GET static",
        "POST login.leave",
        "POST login.submit",
    },
    Role.VIEWER: {
        "DELETE api_people.delete_token",
        "GET account.index",
        "GET activities.index",
        "GET api_activities.index",
        "GET api_archive.download",
        "GET api_autoscaling.show",
        "GET api_events.of_farm",
        "GET api_events.of_job",
        "GET api_images.everywhere",
        "GET api_images.file",
        "GET api_images.index",
        "GET api_images.latents",
        "GET api_images.preview",
        "GET api_images.show",
        "GET api_images.thumbnail",
        "GET api_inputs.show",
        "GET api_jobs.index",
        "GET api_jobs.show",
        "GET api_people.me",
        "GET api_people.tokens",
        "GET api_pipelines.adapters",
        "GET api_pipelines.index",
        "GET api_pipelines.show",
        "GET api_presets.index",
        "GET api_queues.index",
        "GET api_queues.past",
        "GET api_retention.index",
        "GET api_retention.show",
        "GET api_shares.index",
        "GET api_webhooks.deliveries",
        "GET api_webhooks.index",
        "GET api_webhooks.show",
        "GET api_word_lists.index",
        "GET api_workers.index",
        "GET compare.show",
        "GET gallery.archive",
        "GET gallery.found",
        "GET gallery.tiles",
        "GET grid.contact_sheet",
        "GET grid.picture",
        "GET grid.show",
        "GET openai.model",
        "GET openai.models",
        "GET operate.plots",
        "GET operate.plots_fragment",
        "GET operate.queues",
        "GET operate.queues_fragment",
        "GET operate.workers",
        "GET operate.workers_fragment",
        "GET pages.image",
        "GET pages.job",
        "GET pages.job_actions",
        "GET pages.job_status",
        "GET pages.jobs",
        "GET pages.jobs_fragment",
        "GET pictures.index",
        "GET prometheus.metrics",
        "GET submission.form",
        "GET submission.rows",
        "GET watching.job_events",
        "GET watching.jobs_events",
        "GET web_ui.checkpoints",
        "GET web_ui.loras",
        "GET web_ui.nothing",
        "GET web_ui.options",
        "GET web_ui.progress",
        "GET web_ui.samplers",
        "GET web_ui.schedulers",
        "GET web_ui.scripts",
        "GET web_ui.upscalers",
        "GET webhooks.index",
        "GET webhooks.show",
        "GET words.index",
        "POST account.close_sessions",
        "POST account.create_token",
        "POST account.delete_token",
        "POST account.password",
        "POST api_archive.download_chosen",
        "POST api_people.create_link",
        "POST api_people.create_token",
        "POST gallery.archive",
        "POST pictures.archive",
    },
    Role.SUBMITTER: {
        "DELETE api_jobs.delete",
        "DELETE api_presets.delete",
        "DELETE api_webhooks.delete",
        "DELETE api_word_lists.delete",
        "GET pages.confirm_deletion",
        "PATCH api_images.mark",
        "PATCH api_jobs.change",
        "PATCH api_webhooks.change",
        "POST api_estimates.create",
        "POST api_images.mark_many",
        "POST api_inputs.create",
        "POST api_jobs.actions",
        "POST api_jobs.cancel",
        "POST api_jobs.create",
        "POST api_jobs.pause",
        "POST api_jobs.resume",
        "POST api_jobs.retry",
        "POST api_presets.create",
        "POST api_webhooks.create",
        "POST api_webhooks.replay",
        "POST api_webhooks.replay_failed",
        "POST api_webhooks.rotate",
        "POST api_webhooks.test",
        "POST gallery.mark",
        "POST openai.edit",
        "POST openai.generate",
        "POST openai.vary",
        "POST pages.act",
        "POST pages.rename",
        "POST pictures.mark",
        "POST presets.delete",
        "POST presets.save",
        "POST submission.check",
        "POST submission.restore",
        "POST submission.submit",
        "POST web_ui.image_to_image",
        "POST web_ui.interrupt",
        "POST web_ui.set_options",
        "POST web_ui.text_to_image",
        "POST webhooks.change",
        "POST webhooks.create",
        "POST webhooks.delete",
        "POST webhooks.disable",
        "POST webhooks.enable",
        "POST webhooks.replay",
        "POST webhooks.replay_failed",
        "POST webhooks.rotate",
        "POST webhooks.test",
        "POST words.delete",
        "POST words.save",
        "PUT api_word_lists.put",
    },
    Role.OPERATOR: {
        "POST api_workers.drain",
        "POST api_workers.resume",
        "POST operate.drain",
        "POST operate.resume",
    },
    Role.ADMIN: {
        "DELETE api_retention.delete",
        "GET api_people.users",
        "GET people.index",
        "PATCH api_people.patch_user",
        "POST api_people.create_user",
        "POST api_retention.run",
        "POST people.add",
        "POST people.disable",
        "POST people.enable",
        "POST people.link",
        "POST people.password",
        "POST people.role",
        "PUT api_retention.put",
        "PUT api_shares.replace",
    },
}

ROLES = tuple(Role)


def routes(app: Flask) -> Iterator[tuple[str, str, str]]:
    """Every method, path and name; the paths lead to nothing, so that nothing is changed by whoever is let in."""
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<[^>]+>", "something", re.sub(r"<int:\w+>", "0", rule.rule))
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield method, path, f"{method} {rule.endpoint}"


def needed(name: str) -> Role | None:
    (role,) = (role for role, names in TAKES.items() if name in names)
    return role


def test_every_route_says_who_it_is_for(app: Flask) -> None:
    named = [name for names in TAKES.values() for name in names]
    assert sorted(named) == sorted({name for _, _, name in routes(app)})


def test_strangers_are_shown_the_door(app: Flask) -> None:
    for method, path, name in routes(app):
        with app.test_client().open(path, method=method) as answer:
            to_login = answer.status_code == 303 and "/login?next=" in answer.location
            if needed(name) is not None:
                assert answer.status_code == 401 or to_login, name


@pytest.mark.parametrize("role", ROLES)
def test_roles_are_let_in_where_they_may_and_nowhere_else(app: Flask, engine: Engine, role: Role) -> None:
    who = people.add_user(engine, f"a {role}", role)
    for method, path, name in routes(app):
        takes = needed(name)
        browser = app.test_client()
        # One's own sessions can be closed by a route.
        browser.set_cookie("farm_session", people.open_session(engine, who.user_id))
        with browser.open(path, method=method) as answer:
            refused = answer.status_code == 403 and "This takes the role" in answer.text
            assert refused == (takes is not None and not role.includes(takes)), name
            assert answer.status_code != 500, name
