"""What the documentation lists by hand: the SDKs' methods, and the routes with their operations. Constants only.

`tests/guide` compares them with the SDKs and with the OpenAPI document.
"""

# (TypeScript, Python, what it does)
METHODS = (
    ("listModels()", "list_models()", "List the models"),
    ("getModel(apiId)", "get_model(api_id)", "A model's details with its schema"),
    ("getModelSchema(apiId)", "get_model_schema(api_id)", "The JSON Schema of its request body"),
    ("estimate(apiId, input)", "estimate(api_id, input)", "What a job would cost"),
    ("run(apiId, input)", "run(api_id, input)", "Submit a job; returns at once"),
    ("generate(apiId, input)", "generate(api_id, input)", "Submit, and poll until it is completed"),
    ("waitForJob(jobId)", "wait_for_job(job_id)", "Poll until a job is completed"),
    ("getJob(jobId)", "get_job(job_id)", "A job's status and output"),
    ("listJobs()", "list_jobs()", "Recent jobs"),
    ("events(jobId)", "events(job_id)", "A job's events as they happen"),
    ("cancel(jobId)", "cancel(job_id)", "Cancel a job, and get its credits back"),
    ("getWebhook(jobId)", "get_webhook(job_id)", "A job's webhook and its deliveries"),
    ("replayWebhook(jobId)", "replay_webhook(job_id)", "Send the webhook of an ended job once more"),
    ("account()", "account()", "Credits, key and limits"),
    ("saveAsset(asset, path)", "save_asset(asset, path)", "Download a result to a file"),
    ("verifyWebhook(body, headers, secret)", "verify_webhook(body, headers, secret)", "Check a webhook's signature"),
)

# (method and path, tag and operation in the reference, what it is for)
ROUTES = (
    ("GET /api/v1/models", "models/listModels", "The models that can run now"),
    ("GET /api/v1/models/{apiId}", "models/getModel", "A model with its schema, examples and price"),
    ("POST /api/v1/models/{apiId}/estimate", "jobs/estimate", "Check and price a job without running it"),
    ("POST /api/v1/models/{apiId}/run", "jobs/run", "Submit a job"),
    ("GET /api/v1/jobs", "jobs/listJobs", "Your recent jobs"),
    ("GET /api/v1/jobs/{jobId}", "jobs/getJob", "A job's whole state, with its assets and webhook"),
    ("GET /api/v1/jobs/{jobId}/events", "jobs/jobEvents", "The job as Server-Sent Events"),
    ("POST /api/v1/jobs/{jobId}/cancel", "jobs/cancelJob", "Cancel it"),
    ("DELETE /api/v1/jobs/{jobId}", "jobs/deleteJob", "Remove an ended job's files"),
    ("GET /api/v1/jobs/{jobId}/webhook", "jobs/getWebhook", "The webhook and every attempt to deliver it"),
    ("POST /api/v1/jobs/{jobId}/webhook", "jobs/replayWebhook", "Send the end of the job once more"),
    ("GET /api/v1/account", "account/getAccount", "Credits, key and limits"),
    ("GET /api/v1/account/usage", "account/getUsage", "What jobs cost, by day, model and key"),
    ("GET /api/v1/account/keys", "account/listKeys", "The account's keys"),
)
