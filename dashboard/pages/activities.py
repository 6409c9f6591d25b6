"""The activity log, said in words."""

from collections import defaultdict
from typing import Any

from flask import Blueprint, render_template, request

from dashboard.arguments import integer
from dashboard.context import context
from dashboard.pages.filters import thousands
from dashboard.queries.activities import list_activities
from farm.models import Activity
from farm.people import list_users

blueprint = Blueprint("activities", __name__)

ACTIVITIES_PER_PAGE = 50

#: What was done, as one says it after the name of who did it. Fields in braces are details of the activity.
WORDS = {
    "job.submit": "submitted {images}",
    "job.cancel": "cancelled the job",
    "job.pause": "paused the job",
    "job.resume": "let the job go on",
    "job.priority": "gave it priority {priority}",
    "job.max_devices": "let it have at most these devices at once: {max_devices}",
    "job.deadline": "gave it the deadline {deadline}",
    "job.rename": "renamed it to “{name}”",
    "job.retry": "had {images} rendered again that had failed",
    "job.restore": "had {images} rendered again that had been removed",
    "job.keep": "changed how long it is kept",
    "job.stop": "gave the job up after {failed} failed images: {images} will not be tried",
    "job.delete": "deleted the job “{name}”",
    "images.mark": "marked {images}",
    "retention.remove": "removed the pictures of {images}",
    "retention.orphans": "removed {objects} that nothing named",
    "retention.mend": "noted that the pictures of {images} are missing",
    "retention.set": "set how long pictures of {owner} are kept",
    "retention.unset": "removed the policy of {owner}",
    "worker.drain": "drained the worker {worker}",
    "worker.resume": "let the worker {worker} go on",
    "share.set": "gave {owner} the weight {weight}",
    "preset.save": "saved the preset “{preset}”",
    "preset.delete": "removed the preset “{preset}”",
    "words.save": "saved the word list “{list}” with {words}",
    "words.delete": "removed the word list “{list}”",
    "user.login": "logged in",
    "user.refused": "failed to log in, from {address}",
    "user.add": "made the user {user}, {role}",
    "user.role": "gave {user} the role {role}",
    "user.password": "set the password of {user}",
    "user.disable": "locked {user} out",
    "user.enable": "let {user} in again",
    "user.link": "made a log-in link for {user}",
    "webhook.add": "made a webhook to {url}",
    "webhook.change": "changed the webhook to {url}",
    "webhook.rotate": "renewed the secret of the webhook to {url}",
    "webhook.delete": "removed the webhook to {url}",
    "token.make": "made the API token “{token}”",
    "token.revoke": "revoked the API token “{token}”",
}

#: The same, as one chooses them from a list.
CHOICES = {
    "job.submit": "submitted",
    "job.cancel": "cancelled",
    "job.pause": "paused",
    "job.resume": "resumed",
    "job.priority": "changed a priority",
    "job.max_devices": "changed how many devices a job may have",
    "job.deadline": "changed a deadline",
    "job.rename": "renamed",
    "job.retry": "rendered failures again",
    "job.restore": "rendered removed pictures again",
    "job.keep": "changed how long a job is kept",
    "job.stop": "gave a job up",
    "job.delete": "deleted",
    "images.mark": "marked pictures",
    "retention.remove": "removed pictures",
    "retention.orphans": "removed orphans",
    "retention.mend": "noted missing pictures",
    "retention.set": "set a policy of retention",
    "retention.unset": "removed a policy of retention",
    "worker.drain": "drained a worker",
    "worker.resume": "resumed a worker",
    "share.set": "set a share",
    "preset.save": "saved a preset",
    "preset.delete": "removed a preset",
    "words.save": "saved a word list",
    "words.delete": "removed a word list",
    "user.login": "logged in",
    "user.refused": "failed to log in",
    "user.add": "made a user",
    "user.role": "changed a role",
    "user.password": "set a password",
    "user.disable": "locked a user out",
    "user.enable": "let a user in again",
    "user.link": "made a log-in link",
    "webhook.add": "made a webhook",
    "webhook.change": "changed a webhook",
    "webhook.rotate": "renewed a webhook's secret",
    "webhook.delete": "removed a webhook",
    "token.make": "made a token",
    "token.revoke": "revoked a token",
}

#: Details that are numbers of something.
COUNTED = {"images": "image", "words": "word", "objects": "object"}

_LONGEST_DETAIL = 120


@blueprint.get("/activity")
def index() -> str:
    """What people did, newest first; narrowed to one actor, one action or one job."""
    actor, action = request.args.get("actor", "").strip(), request.args.get("action", "")
    job_id = integer("job") if request.args.get("job") else None
    before = integer("before")
    engine = context().engine
    page = list_activities(engine, ACTIVITIES_PER_PAGE, before, actor=actor, action=action, job_id=job_id)
    chosen: dict[str, Any] = {"actor": actor or None, "action": action or None, "job": job_id}
    return render_template(
        "activity.html",
        activities=page.entries,
        chosen=chosen,
        narrowed=any(value is not None for value in chosen.values()),
        choices=CHOICES if not action or action in CHOICES else {**CHOICES, action: action},
        names=[user.name for user in list_users(engine)],
        before=before,
        next=page.entries[-1].id if page.more else None,
    )


def in_words(activity: Activity) -> str:
    """What was done. Of actions that have no words here, their name and details are told as they are."""
    details = {name: _shown(name, value) for name, value in (activity.details or {}).items()}
    if words := WORDS.get(activity.action):
        return words.format_map(defaultdict(lambda: "?", details))
    told = ", ".join(text if name in COUNTED else f"{name} {text}" for name, text in details.items())
    return f"{activity.action.replace('.', ' ')}: {told}" if told else activity.action.replace(".", " ")


def _shown(name: str, value: Any) -> str:
    if name in COUNTED and isinstance(value, int):
        return f"{thousands(value)} {COUNTED[name]}{'' if value == 1 else 's'}"
    text = str(value)
    return text if len(text) <= _LONGEST_DETAIL else text[:_LONGEST_DETAIL] + "…"
