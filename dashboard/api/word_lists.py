"""Lists of words that prompt templates name."""

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import BadRequest

from dashboard.api.operations import TEXT, describe
from dashboard.api.schemas.farm import WordList, WordLists
from dashboard.auth import identity
from dashboard.context import context
from producer.words import delete_word_list, save_word_list, word_lists

blueprint = Blueprint("api_word_lists", __name__)


@blueprint.get("/word-lists")
@describe("words", {200: WordLists})
def index() -> Response:
    """All lists, with their words."""
    lists = word_lists(context().engine)
    return jsonify({"word_lists": [{"name": name, "words": [*words]} for name, words in lists.items()]})


@blueprint.put("/word-lists/<path:name>")
@describe("words", {200: WordList}, body=TEXT)
def put(name: str) -> Response:
    """Store a list: the body is text, one word or phrase a line."""
    try:
        text = request.get_data(cache=False).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequest(f"The list is not UTF-8: {error}.") from None
    return jsonify({"name": name, "words": [*save_word_list(context().engine, name, text, identity().name)]})


@blueprint.delete("/word-lists/<path:name>")
@describe("words", {204: None})
def delete(name: str) -> tuple[str, int]:
    """Remove a list; jobs that were submitted with it keep their prompts."""
    delete_word_list(context().engine, name, identity().name)
    return "", 204
