"""What servers say and what it means: error bodies as providers send them, each with the one remedy that is right."""

# ruff: noqa: E501 (bodies are quoted as they are sent)
from __future__ import annotations

import json
from typing import Any

import pytest

from sdft_cli.llm.http_client import HttpResponse
from sdft_cli.llm.refusals import (
    ABORT,
    DROP_PARAMETER,
    MODERATED,
    PUT_OFF,
    RETRY,
    SKIP,
    SLOW_DOWN,
    TOO_LONG,
    wait_in,
)
from sdft_cli.llm.refused_parameters import GREEDY, STREAMING, SYSTEM
from sdft_cli.llm.responses import ApiError, read
from sdft_cli.llm.types import Request


def error_of(status: int, body: Any, temperature: float = 0.7, max_tokens: int = 512, **extra: Any) -> ApiError:
    """The error in a response to a request with a system message and two samples."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    request = Request(messages, temperature, max_tokens, extra, (0, 1))
    with pytest.raises(ApiError) as error:
        read(HttpResponse(status, {}, body if isinstance(body, str) else json.dumps(body)), request)
    return error.value


def openai(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **more}}


def pydantic(*place: str, kind: str = "extra_forbidden", msg: str = "Extra inputs are not permitted") -> list[Any]:
    return [{"type": kind, "loc": list(place), "msg": msg, "input": 3}]


# --- parameters -------------------------------------------------------------------------------------------------------

PARAMETERS = [
    # OpenAI's o-series and gpt-5; Azure says the same
    ("temperature", 400, openai("Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.", param="temperature", code="unsupported_value")),
    ("temperature", 400, openai("Unsupported parameter: 'temperature' is not supported with this model.", param="temperature", code="unsupported_parameter")),
    ("max_tokens", 400, openai("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", param="max_tokens", code="unsupported_parameter")),
    ("top_p", 400, openai("Unsupported parameter: 'top_p' is not supported with this model.", param="top_p", code="unsupported_parameter")),
    ("logprobs", 400, openai("Unsupported parameter: 'logprobs' is not supported with this model.", param="logprobs")),
    ("logprobs", 403, openai("You are not allowed to request logprobs from this model", param="logprobs")),
    ("seed", 400, openai("Unrecognized request argument supplied: seed")),
    ("seed", 400, openai("Unknown parameter: 'seed'.", param="seed", code="unknown_parameter")),
    ("seed", 404, openai("Unrecognized request arguments supplied: seed, n")),
    ("temperature", 400, openai("invalid temperature: only 1 is allowed for this model")),  # Moonshot
    # Gemini, as an object and as a list of one
    ("seed", 400, [{"error": {"code": 400, "message": "Invalid JSON payload received. Unknown name \"seed\": Cannot find field.", "status": "INVALID_ARGUMENT", "details": [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"description": "Invalid JSON payload received. Unknown name \"seed\": Cannot find field."}]}]}}]),
    ("n", 400, {"error": {"code": 400, "message": "Multiple candidates is not enabled for this model", "status": "INVALID_ARGUMENT"}}),
    ("n", 400, {"error": {"code": 400, "message": "Invalid JSON payload received. Unknown name \"n\": Cannot find field."}}),
    # Anthropic, direct and through gateways
    ("temperature", 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "`temperature` is deprecated for this model."}}),
    ("top_p", 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "`top_p` and `temperature` cannot both be specified for this model. Please use only one."}}),
    ("seed", 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "seed: Extra inputs are not permitted"}}),
    ("temperature", 400, openai("litellm.BadRequestError: BedrockException - {\"message\":\"The model returned the following errors: {\\\"type\\\":\\\"error\\\",\\\"error\\\":{\\\"type\\\":\\\"invalid_request_error\\\",\\\"message\\\":\\\"`temperature` is deprecated for this model.\\\"}}\"}")),
    ("temperature", 400, openai("litellm.UnsupportedParamsError: openai does not support parameters: ['temperature'], for model=gpt-5. To drop these, set `litellm.drop_params=True`")),
    ("temperature", 400, openai("litellm.UnsupportedParamsError: gpt-5 models (including gpt-5-codex) don't support temperature=0. Only temperature=1 is supported.")),
    # Mistral, vLLM, NIM and others built on pydantic
    ("seed", 422, {"object": "error", "message": {"detail": pydantic("body", "seed")}, "type": "invalid_request_error"}),
    ("n", 422, {"detail": pydantic("body", "n")}),
    ("seed", 400, {"object": "error", "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted', 'input': 800}]", "type": "BadRequestError", "code": 400}),
    ("max_tokens", 400, {"object": "error", "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'max_tokens'), 'msg': 'Extra inputs are not permitted', 'input': 8192}]"}),
    ("n", 400, {"message": "When n > 1, temperature must be greater than 0 to ensure diverse outputs. Got n=2, temperature=0", "type": "Bad Request", "code": 400}),
    ("n", 400, openai("n must be 1 when using greedy sampling, got 2.")),
    ("n", 422, {"detail": [{"type": "less_than_equal", "loc": ["body", "n"], "msg": "Input should be less than or equal to 1"}]}),
    # Groq
    ("seed", 400, openai("property 'seed' is unsupported")),
    ("seed", 400, openai("property 'seed' is unsupported, did you mean 'stop'?")),
    ("n", 400, openai("'n' : number must be at most 1", code="invalid_request")),
    ("logprobs", 400, openai("`logprobs` is not supported with this model")),
    # xAI writes in camel case
    ("top_logprobs", 400, {"code": "Client specified an invalid argument", "error": "Argument not supported on this model: topLogprobs"}),
    ("logprobs", 400, {"code": "invalid-argument", "error": "Model grok-4 does not support parameter logprobs."}),
    # others
    ("n", 400, openai("Only one completion choice is allowed")),
    ("n", 400, openai("n > 1 is not supported")),
    ("n", 400, openai("n: Extra inputs are not permitted")),
    ("n", 400, openai("Parameter n must equal 1 (multi-choice is not supported)")),
    ("n", 501, openai("This backend cannot generate multiple completions; multiple choices are not supported")),
    ("seed", 400, {"message": "unknown field `seed`, expected one of `model`, `messages`, `max_tokens`"}),
    ("seed", 422, "Failed to deserialize the JSON body into the target type: unknown field `seed` at line 1 column 200"),
    ("seed", 400, {"detail": "Unexpected keyword argument 'seed'"}),
    ("seed", 400, {"errors": [{"field": "seed", "message": "additional properties are not allowed"}]}),
    ("stop", 400, openai("Unsupported parameter: 'stop' is not supported with this model.", param="stop")),
    ("seed", 200, {"error": {"message": "parameter seed is not supported by this engine", "code": 400}}),
    ("seed", 500, openai("ValidationError: seed: Extra inputs are not permitted")),
    ("frequency_penalty", 400, openai("frequency_penalty is not supported")),
    ("temperature", 400, {"error": {"code": "1210", "message": "该模型不支持 temperature 参数"}}),
    # HTTP gateways that wrap another's error
    ("seed", 400, {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": "{\"error\":{\"message\":\"Unsupported parameter: 'seed'\"}}", "provider_name": "X"}}}),
    (STREAMING, 400, {"detail": "Stream must be set to true"}),
    (STREAMING, 400, openai("This model only supports streaming mode, please enable the stream parameter to access the model.")),
    (STREAMING, 400, {"code": "InvalidParameter", "message": "parameter.enable_thinking must be set to false for non-streaming calls"}),
    (STREAMING, 400, openai("enable thinking can not be support when `stream=False`.")),
    (STREAMING, 400, openai("Non-streaming requests are not supported", param="stream")),
    (STREAMING, 400, openai("current model only support stream mode")),
    (STREAMING, 422, openai("Streaming is required for this model", param="stream")),
    (STREAMING, 400, openai("该模型仅支持流式输出")),
    (SYSTEM, 400, openai("Unsupported value: 'messages[0].role' does not support 'system' with this model.", param="messages[0].role", code="unsupported_value")),
    (SYSTEM, 400, {"error": {"code": 400, "message": "Developer instruction is not enabled for models/gemma-3-27b-it", "status": "INVALID_ARGUMENT"}}),
    (SYSTEM, 400, {"object": "error", "message": "System role not supported"}),
    (SYSTEM, 400, {"object": "error", "message": "Conversation roles must alternate user/assistant/user/assistant/..."}),
    (SYSTEM, 400, openai("This model does not support system messages")),
    # a smaller limit
    ("max_tokens>8192", 400, openai("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]")),
    ("max_tokens>8192", 400, openai("<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 8192]")),
    ("max_tokens>4096", 400, openai("max_tokens is too large: 9000. This model supports at most 4096 completion tokens, whereas you provided 9000.", param="max_tokens", code="invalid_value")),
    ("max_tokens>4096", 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: 9000 > 4096, which is the maximum allowed number of output tokens for claude-3-haiku-20240307"}}),
    ("max_tokens>8000", 400, openai("max_tokens for `llama-3.1-8b-instant` must be less than or equal to 8000")),
    ("max_tokens>8192", 400, openai("`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than the `context_window` for this model", param="max_tokens")),
    ("max_tokens>4096", 400, {"message": "The maximum tokens you requested exceeds the model limit of 4096. Try again with a maximum tokens value that is lower than 4096."}),
]  # fmt: skip


@pytest.mark.parametrize(("parameter", "status", "body"), PARAMETERS)
def test_a_parameter_that_is_refused_is_left_out(parameter, status, body):
    extra = {"top_p": 0.9, "logprobs": True, "top_logprobs": 3, "stop": ["\n"], "frequency_penalty": 0.0}
    error = error_of(status, body, max_tokens=9000, **extra)
    assert (error.remedy, error.parameter) == (DROP_PARAMETER, parameter)


@pytest.mark.parametrize(
    "message",
    [
        "Input validation error: `temperature` must be strictly positive",
        "temperature must be greater than 0",
        "temperature参数非法。请检查文档。",
        "'temperature' must be in the range (0.0, 2.0)",
        "temperature should be in (0.0, 1.0]",
    ],
)
def test_a_temperature_of_zero_becomes_almost_zero(message):
    assert error_of(400, openai(message), temperature=0.0).parameter == GREEDY
    assert error_of(422, {"error": message}, temperature=1.0).parameter == "temperature"  # the default everywhere
    wrong = error_of(400, openai(message), temperature=1.5)
    assert (wrong.remedy, wrong.about) == (ABORT, "give --temperature another value")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tools", '"tools" is not supported by this model'),
        ("reasoning_effort", "Unrecognized request argument supplied: reasoning_effort"),
        ("response_format", "property 'response_format' is unsupported"),
        ("max_completion_tokens", "Unsupported parameter: 'max_completion_tokens'"),
    ],
)
def test_what_decides_what_is_asked_cannot_be_left_out(name, message):
    error = error_of(400, openai(message), **{name: "low"})
    assert error.remedy == ABORT
    assert error.about


# --- prompts ----------------------------------------------------------------------------------------------------------

LONG = [
    (400, openai("This model's maximum context length is 8192 tokens. However, your messages resulted in 8227 tokens. Please reduce the length of the messages.", param="messages", code="context_length_exceeded")),
    (400, openai("This model's maximum context length is 8192 tokens. However, you requested 9011 tokens (8499 in the messages, 512 in the completion). Please reduce the length of the messages or completion.")),
    (400, openai("Your input exceeds the context window of this model. Please adjust your input and try again.", code="context_length_exceeded")),
    (400, openai("Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 509178 tokens. Please reduce the length of the messages.")),
    (400, openai("Invalid 'messages[0].content': string too long. Expected a string with maximum length 1048576", code="string_above_max_length")),
    # vLLM, SGLang, TGI, llama.cpp, Ollama, LM Studio
    (400, {"object": "error", "message": "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum context length is 4096 tokens and your request has 4000 input tokens (512 > 4096 - 4000).", "type": "BadRequestError", "code": 400}),
    (400, {"object": "error", "message": "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure that `max_model_len` is no smaller than the number of text tokens."}),
    (400, {"object": "error", "message": "The input (61709 tokens) is longer than the model's context length (40960 tokens).", "type": "BadRequestError"}),
    (400, {"object": "error", "message": "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of 4600 tokens: 4088 tokens from the input messages and 512 tokens for the completion."}),
    (422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and 512 `max_new_tokens`", "error_type": "validation"}),
    (422, {"error": "Input validation error: `inputs` must have less than 2048 tokens. Given: 2222", "error_type": "validation"}),
    (400, {"error": {"code": 400, "message": "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it", "type": "exceed_context_size_error", "n_prompt_tokens": 5000, "n_ctx": 4096}}),
    (500, {"error": {"code": 500, "message": "the request exceeds the available context size. try increasing the context size or enable context shift", "type": "invalid_request_error"}}),
    (500, {"error": {"message": "input length exceeds the context length", "type": "api_error"}}),
    (400, {"error": "The number of tokens to keep from the initial prompt is greater than the context length. Try to load the model with a larger context length, or provide a shorter input"}),
    # hosted
    (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 213462 tokens > 200000 maximum"}}),
    (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "input length and `max_tokens` exceed context limit: 174167 + 64000 > 200000, decrease input length or `max_tokens` and try again"}}),
    (413, {"type": "error", "error": {"type": "request_too_large", "message": "Request exceeds the maximum size"}}),
    (413, "<html><head><title>413 Request Entity Too Large</title></head></html>"),
    (413, ""),
    (400, [{"error": {"code": 400, "message": "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).", "status": "INVALID_ARGUMENT"}}]),
    (400, {"error": {"message": "This model's maximum context length is 65536 tokens. However, you requested 70000 tokens (69488 in the messages, 512 in the completion). Please reduce the length of the messages or completion.", "type": "invalid_request_error"}}),
    (400, {"object": "error", "message": "Prompt contains 152960 tokens and 0 draft tokens, too large for model with 131072 maximum context length", "type": "invalid_request_prompt", "code": "3051"}),
    (400, {"object": "error", "message": "Too many tokens in prompt: 40000", "type": "invalid_request_error"}),
    (400, openai("Please reduce the length of the messages or completion.", code="context_length_exceeded")),
    (413, openai("Request too large for model `llama-3.1-8b-instant` in organization `org_1` service tier `on_demand` on tokens per minute (TPM): Limit 6000, Requested 12000, please reduce your message size and try again.", code="rate_limit_exceeded")),
    (429, openai("Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 44521. The input or output tokens must be reduced in order to run successfully.", code="rate_limit_exceeded")),
    (400, {"code": "invalid-argument", "error": "This model's maximum prompt length is 131072 but the request contains 537812 tokens."}),
    (400, {"error": {"message": "This endpoint's maximum context length is 32768 tokens. However, you requested about 40000 tokens (39488 of text input, 512 in the output). Please reduce the length of either one, or use the \"middle-out\" transform.", "code": 400}}),
    (400, openai("Invalid request: Your request exceeded model token limit: 8192 (requested: 9000)")),
    (400, {"code": "InvalidParameter", "message": "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]"}),
    (400, {"error": {"code": "1261", "message": "Prompt 超长"}}),
    (400, {"message": "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292."}),
    (400, {"error": {"object": "error", "message": "The prompt is too long: 140000, model maximum context length: 131071"}}),
    (400, {"message": "Input is too long for requested model."}),
    (400, {"message": "Too many input tokens. Max input tokens: 8192, request input token count: 9000"}),
    (400, openai("litellm.ContextWindowExceededError: litellm.BadRequestError: ContextWindowExceededError: OpenAIException - Error code: 400")),
    (400, openai("length of prompt_tokens (163280) must be less than max_seq_len (32768).")),
    (400, openai("Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192")),
    (400, openai("prompt token count of 130000 exceeds the limit of 128000")),
    (400, openai("invalid params, context window exceeds limit (2013)")),
    (400, openai("the request is too large: input tokens exceed the model's limit")),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), LONG)
def test_a_prompt_that_is_too_long_is_left_out(status, body):
    error = error_of(status, body)
    assert (error.remedy, error.about) == (SKIP, TOO_LONG)


FILTERED = [
    (400, openai("The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify your prompt and retry.", param="prompt", code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"})),
    (400, openai("Your request was rejected as a result of our safety system.", code="content_policy_violation")),
    (400, openai("Invalid prompt: your prompt was flagged as potentially violating our usage policy. Please try again with a different prompt.", code="invalid_prompt")),
    (403, {"error": {"message": "openai/gpt-4 requires moderation on OpenAI. Your input was flagged for \"violence\".", "code": 403, "metadata": {"reasons": ["violence"], "flagged_input": "..."}}}),
    (400, openai("<400> InternalError.Algo.DataInspectionFailed: Input text data may contain inappropriate content.", code="data_inspection_failed")),
    (400, openai("Content Exists Risk")),
    (400, {"detail": "Content Exists Risk"}),
    (400, {"error": {"code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容，请您避免输入易产生敏感内容的提示语，感谢您的配合。"}, "contentFilter": [{"level": 1, "role": "user"}]}),
    (400, {"error": {"message": "The request was rejected because it was considered high risk", "type": "content_filter"}}),
    (403, {"code": "The caller does not have permission to execute the specified operation", "error": "Content violates usage guidelines. Team: x, API key ID: y, Model: grok-4, Failed check: SAFETY_CHECK_TYPE_CSAM"}),
    (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "Output blocked by content filtering policy"}}),
    (400, {"error": {"code": 400, "message": "The prompt was blocked due to safety reasons: PROHIBITED_CONTENT"}}),
    (400, {"message": "The guardrail intervened: Sorry, I cannot answer this."}),
    (451, "unavailable"),
    (200, {"error": {"message": "Content Exists Risk", "code": 400}}),
    (400, openai("litellm.ContentPolicyViolationError: litellm.BadRequestError: ContentPolicyViolationError: AzureException")),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), FILTERED)
def test_a_prompt_that_is_moderated_is_left_out(status, body):
    error = error_of(status, body)
    assert (error.remedy, error.about) == (SKIP, MODERATED)


# --- the run ----------------------------------------------------------------------------------------------------------

FINAL = [
    ("key", 401, openai("Incorrect API key provided: sk-ab****yz.", code="invalid_api_key")),
    ("key", 401, ""),
    ("key", 400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"}}]),
    ("key", 401, {"error": {"message": "Authentication Fails (no such user)", "type": "authentication_error"}}),
    ("key", 400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***yz. You can obtain an API key from https://console.x.ai."}),
    ("key", 401, {"detail": "Unauthorized"}),
    ("key", 401, {"message": "no api key supplied"}),
    ("key", 401, {"error": {"message": "No auth credentials found", "code": 401}}),
    ("money", 402, {"error": {"message": "Insufficient Balance", "type": "unknown_error"}}),
    ("money", 402, {"error": {"message": "This request requires more credits, or fewer max_tokens. You requested up to 4096 tokens, but can only afford 222.", "code": 402}}),
    ("money", 429, openai("You exceeded your current quota, please check your plan and billing details.", code="insufficient_quota")),
    ("money", 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access the Anthropic API."}}),
    ("money", 429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}),
    ("money", 400, {"code": "Arrearage", "message": "Access denied, please make sure your account is in good standing."}),
    ("money", 400, openai("Budget has been exceeded! Current cost: 10.2, Max budget: 10.0", type="budget_exceeded")),
    ("money", 403, openai("Your account is not active, please check your billing details on our website.", code="billing_not_active")),
    ("money", 429, openai("Your account org-x is suspended, please check your plan and billing details", type="exceeded_current_quota_error")),
    ("model", 404, openai("The model `gpt-9` does not exist or you do not have access to it.", code="model_not_found")),
    ("model", 404, openai("The API deployment for this resource does not exist.", code="DeploymentNotFound")),
    ("model", 404, {"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404}),
    ("model", 404, {"error": {"message": "model \"llama9\" not found, try pulling it first", "type": "api_error"}}),
    ("model", 400, {"error": {"message": "x/y is not a valid model ID", "code": 400}}),
    ("model", 400, openai("Model Not Exist")),
    ("model", 404, {"error": {"message": "No endpoints found for x/y.", "code": 404}}),
    ("model", 404, {"type": "error", "error": {"type": "not_found_error", "message": "model: claude-9"}}),
    ("model", 400, {"object": "error", "message": "Invalid model: mistral-giant", "type": "invalid_model"}),
    ("model", 503, {"error": {"message": "当前分组 default 下对于模型 x 无可用渠道", "code": "model_not_found"}}),
    ("model", 404, {"error": {"code": "1211", "message": "模型不存在，请检查模型代码。"}}),
    ("--base-url", 404, {"detail": "Not Found"}),
    ("--base-url", 404, "404 page not found"),
    ("--base-url", 405, {"detail": "Method Not Allowed"}),
    ("--base-url", 200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"}),
    ("--max-tokens", 400, openai("This model's maximum context length is 512 tokens. However, you requested 612 tokens (100 in the messages, 512 in the completion).")),
    ("--max-tokens", 422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 512. Given: 40 `inputs` tokens and 512 `max_new_tokens`"}),
    ("per day", 429, openai("Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day")),
    ("proxy", 407, "Proxy Authentication Required"),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "status", "body"), FINAL)
def test_what_concerns_every_prompt_ends_the_run_with_a_hint(hint, status, body):
    error = error_of(status, body)
    assert error.remedy == ABORT
    assert hint in error.about
    assert "\n" not in error.what


PASSING = [
    (SLOW_DOWN, 429, openai("Rate limit reached for gpt-4 in organization org-x on tokens per min (TPM): Limit 10000, Used 9000, Requested 2000. Please try again in 6s.", code="rate_limit_exceeded"), 6.0),
    (SLOW_DOWN, 429, openai("Rate limit reached for model `x` on tokens per day (TPD): Limit 100000, Used 99000. Please try again in 7m12.5s. Need more tokens? Upgrade"), 432.5),
    (SLOW_DOWN, 429, {"error": {"code": 429, "message": "You exceeded your current quota, please check your plan and billing details.", "status": "RESOURCE_EXHAUSTED", "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36s"}]}}, 36.0),
    (SLOW_DOWN, 429, {"error": {"code": "429", "message": "Requests have exceeded call rate limit. Please retry after 6 seconds."}}, 6.0),
    (SLOW_DOWN, 429, {"message": "Too many tokens, please wait before trying again."}, None),
    (SLOW_DOWN, 429, {"object": "error", "message": "Requests rate limit exceeded"}, None),
    (SLOW_DOWN, 429, {"error": {"code": "1302", "message": "您当前使用该API的并发数过高，请降低并发"}}, None),
    (SLOW_DOWN, 503, {"error": {"message": "The engine is currently overloaded, please try again later"}}, None),
    (SLOW_DOWN, 529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, None),
    (SLOW_DOWN, 200, {"error": {"type": "overloaded_error", "message": "Overloaded"}}, None),
    (SLOW_DOWN, 200, {"error": {"message": "Rate limit exceeded", "code": 429}}, None),
    (SLOW_DOWN, 400, openai("Service is busy, try again")  , None),
    (RETRY, 500, openai("The server had an error while processing your request. Sorry about that!"), None),
    (RETRY, 502, "<html><title>502 Bad Gateway</title></html>", None),
    (RETRY, 520, "", None),
    (RETRY, 408, "", None),
    (RETRY, 200, {"error": {"message": "Provider returned error", "code": 502}}, None),
]  # fmt: skip


@pytest.mark.parametrize(("remedy", "status", "body", "wait"), PASSING)
def test_what_passes_is_waited_for(remedy, status, body, wait):
    error = error_of(status, body)
    assert (error.remedy, error.wait) == (remedy, wait)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, openai("the flux capacitor is misaligned")),
        (403, {"message": "Forbidden"}),
        (403, openai("Country, region, or territory not supported", code="unsupported_country_region_territory")),
        (403, "<html><title>Attention Required! | Cloudflare</title></html>"),
        (422, {"detail": "could not render the chat template"}),
        (400, "no"),
    ],
)
def test_other_words_are_held_until_the_others_are_answered(status, body):
    error = error_of(status, body)
    assert (error.remedy, error.suspect) == (PUT_OFF, 1)


def test_a_text_names_the_pause():
    assert wait_in("try again in 350ms") == pytest.approx(0.35)
    assert wait_in("Please try again in 1h2m3s.") == 3723
    assert wait_in("try again in 20 seconds") == 20
    assert wait_in("try again in 5 minutes") == 300
    assert wait_in("please try again later") is None
    assert wait_in("try again in a moment") is None


def test_a_prompt_that_is_echoed_is_not_read_as_a_refusal():
    body = {"detail": [{"type": "missing", "loc": ["body", "model"], "msg": "Field required", "input": {"messages": [{"content": "a content_filter flagged it: prompt is too long"}]}}]}  # fmt: skip
    assert error_of(422, body).remedy == PUT_OFF
