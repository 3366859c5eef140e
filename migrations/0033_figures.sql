-- How the machine did against its readers: what was said of each answer and of each finding, in one word.

CREATE INDEX verdict_analysis ON verdict (analysis_id, account_id);

CREATE VIEW judged_answer AS
SELECT
    analysis.id AS analysis_id,
    analysis.study_id,
    ran.models,
    analysis.answer,
    CASE WHEN count(DISTINCT latest.verdict) = 1 THEN min(latest.verdict) ELSE 'differ' END AS outcome,
    EXISTS (SELECT FROM correction WHERE correction.analysis_id = analysis.id) AS corrected,
    max(latest.at) AS at
FROM (
    SELECT DISTINCT ON (analysis_id, account_id) analysis_id, verdict, at
    FROM verdict WHERE finding IS NULL
    ORDER BY analysis_id, account_id, id DESC
) latest
JOIN analysis ON analysis.id = latest.analysis_id
CROSS JOIN LATERAL (
    SELECT coalesce(string_agg(concat(run ->> 'id', ' ', run ->> 'version'), ', ' ORDER BY run ->> 'id'), '') AS models
    FROM jsonb_array_elements(analysis.report -> 'models') AS runs (run)
) ran
GROUP BY analysis.id, ran.models;
COMMENT ON VIEW judged_answer IS 'One row an answer that somebody read: the latest verdict of each reader, or differ when they are not of one mind.';

CREATE VIEW judged_finding AS
SELECT
    said.analysis_id,
    analysis.study_id,
    said.name,
    concat(said.model, ' ', (
        SELECT run ->> 'version' FROM jsonb_array_elements(analysis.report -> 'models') AS runs (run)
        WHERE run ->> 'id' = said.model LIMIT 1
    )) AS model,
    said.kind,
    CASE WHEN count(DISTINCT said.verdict) = 1 THEN min(said.verdict) ELSE 'differ' END AS outcome,
    array_remove(array_agg(DISTINCT said.reason), NULL) AS reasons,
    EXISTS (
        SELECT FROM correction
        WHERE correction.analysis_id = said.analysis_id AND correction.edited AND said.kind LIKE '%' || correction.kind
    ) AS edited,
    max(said.at) AS at
FROM (
    SELECT
        finding.analysis_id, finding.name, finding.model, finding.kind,
        coalesce(own.verdict, whole.verdict) AS verdict,
        CASE WHEN own.verdict IS NULL THEN whole.reason ELSE own.reason END AS reason,
        coalesce(own.at, whole.at) AS at
    FROM (SELECT DISTINCT analysis_id, account_id FROM verdict) reader
    JOIN finding ON finding.analysis_id = reader.analysis_id
    LEFT JOIN LATERAL (
        SELECT verdict, reason, at FROM verdict
        WHERE verdict.analysis_id = finding.analysis_id AND verdict.account_id = reader.account_id
          AND verdict.finding = finding.name
        ORDER BY id DESC LIMIT 1
    ) own ON true
    LEFT JOIN LATERAL (
        SELECT verdict, reason, at FROM verdict
        WHERE verdict.analysis_id = finding.analysis_id AND verdict.account_id = reader.account_id
          AND verdict.finding IS NULL
        ORDER BY id DESC LIMIT 1
    ) whole ON whole.verdict <> 'missed'
) said
JOIN analysis ON analysis.id = said.analysis_id
WHERE said.verdict IS NOT NULL
GROUP BY said.analysis_id, analysis.study_id, analysis.report, said.name, said.model, said.kind;
COMMENT ON VIEW judged_finding IS 'One row a finding that somebody judged: by itself, or else with the answer that it belongs to; that something else was missed says nothing of it.';

GRANT SELECT ON judged_answer, judged_finding TO ictus_app;
