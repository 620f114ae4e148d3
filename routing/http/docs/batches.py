"""What do the routes of files and batches take and answer? Their part of the OpenAPI document. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from routing.batches.values import ENDPOINTS, WINDOW, BatchStatus

Part = dict[str, Any]
_TEXT: Part = {"type": "string"}
_TIME: Part = {"type": ["integer", "null"], "description": "Unix time; null: it has not come to that."}
_EXAMPLE = {
    "input_file_id": "file-0123456789abcdef0123456789abcdef",
    "endpoint": "/v1/chat/completions",
    "completion_window": WINDOW,
}


def paths(failures: Callable[..., Part]) -> Part:
    """Describe the routes; `failures` gives the answers of statuses, beside those that every route has."""

    def operation(name: str, summary: str, answer: Part, *statuses: int, **more: Any) -> Part:
        content = {"application/json": {"schema": answer}}
        answers = {"200": {"description": "The answer.", "content": content}, **failures(503, *statuses)}
        return {"tags": ["Batches"], "operationId": name, "summary": summary, "responses": answers, **more}

    deleted = {"type": "object", "properties": {"id": _TEXT, "deleted": {"const": True}}}
    page = [_query("limit", "At most so many.", "20"), _query("after", "Those after this id.", "")]
    files = [
        *page,
        _query("order", "`asc` or `desc` by time.", "desc"),
        _query("purpose", "Of one.", "batch"),
    ]
    file, batch = [_id("file_id")], [_id("batch_id")]
    content = operation("file_content", "Read a file", _TEXT, 404, parameters=file)
    content["responses"]["200"]["content"] = {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
    }
    return {
        "/v1/files": {
            "post": operation("create_file", "Upload a file", _FILE, 400, 408, 413, 415, 429, **_UPLOAD),
            "get": operation("files", "List your files", _listed(_FILE), 400, parameters=files),
        },
        "/v1/files/{file_id}": {
            "get": operation("file", "Describe a file", _FILE, 404, parameters=file),
            "delete": operation("delete_file", "Delete a file", deleted, 404, 409, parameters=file),
        },
        "/v1/files/{file_id}/content": {"get": content},
        "/v1/batches": {
            "post": operation(
                "create_batch",
                "Have the requests of a file answered within a day",
                _BATCH,
                *(400, 404, 408, 413, 415, 429),
                description="On what other requests leave. Each line of the file is a JSON object with a "
                "`custom_id` of its own, `method` (POST), `url` (the endpoint) and `body` (the request).",
                requestBody={
                    "required": True,
                    "content": {"application/json": {"schema": _NEW_BATCH, "example": _EXAMPLE}},
                },
            ),
            "get": operation("batches", "List your batches", _listed(_BATCH), 400, parameters=page),
        },
        "/v1/batches/{batch_id}": {
            "get": operation("batch", "Describe a batch", _BATCH, 404, parameters=batch),
        },
        "/v1/batches/{batch_id}/cancel": {
            "post": operation("cancel_batch", "Cancel a batch", _BATCH, 404, 409, parameters=batch),
        },
    }


def _listed(item: Part) -> Part:
    data = {"type": "array", "items": item}
    return {"type": "object", "properties": {"data": data, "has_more": {"type": "boolean"}}}


def _query(name: str, description: str, example: str) -> Part:
    return {"name": name, "in": "query", "description": description, "schema": _TEXT, "example": example}


def _id(name: str) -> Part:
    return {"name": name, "in": "path", "required": True, "schema": _TEXT}


_FILE: Part = {
    "type": "object",
    "properties": {
        "id": _TEXT,
        "bytes": {"type": "integer"},
        "created_at": _TIME,
        "expires_at": _TIME,
        "filename": _TEXT,
        "purpose": {"enum": ["batch", "batch_output"]},
    },
}
_UPLOAD: Part = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["purpose", "file"],
                    "properties": {
                        "purpose": {"const": "batch"},
                        "file": {"type": "string", "format": "binary", "description": "Lines of JSON."},
                        "expires_after[anchor]": {"const": "created_at"},
                        "expires_after[seconds]": {"type": "integer"},
                    },
                }
            }
        },
    }
}
_NEW_BATCH: Part = {
    "type": "object",
    "required": ["input_file_id", "endpoint", "completion_window"],
    "properties": {
        "input_file_id": _TEXT,
        "endpoint": {"enum": list(ENDPOINTS)},
        "completion_window": {"const": WINDOW},
        "metadata": {"type": ["object", "null"], "additionalProperties": _TEXT},
        "output_expires_after": {
            "type": ["object", "null"],
            "properties": {"anchor": {"const": "created_at"}, "seconds": {"type": "integer"}},
        },
    },
}
_BATCH: Part = {
    "type": "object",
    "properties": {
        "id": _TEXT,
        "status": {"enum": [status.value for status in BatchStatus]},
        "endpoint": _TEXT,
        "input_file_id": _TEXT,
        "output_file_id": {"type": ["string", "null"], "description": "Answers, a line of JSON each."},
        "error_file_id": {"type": ["string", "null"], "description": "The same of requests that failed."},
        "errors": {"type": ["object", "null"], "description": "What is wrong with the file or its owner."},
        "request_counts": {"type": "object", "additionalProperties": {"type": "integer"}},
        "created_at": _TIME,
        "expires_at": _TIME,
        "completed_at": _TIME,
    },
}
