-- How the result of a job that is being worked on will look; gone when the job has ended.
CREATE TABLE job_previews (
    job_id TEXT PRIMARY KEY REFERENCES jobs (id),
    number BIGINT NOT NULL, -- rises with each preview of the job
    content_type TEXT NOT NULL,
    picture {bytes} NOT NULL
);
