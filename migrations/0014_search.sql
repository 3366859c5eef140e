-- Searches that cost the same in a small archive and in a large one: counts are kept, and every key has its index.

ALTER TABLE series ADD COLUMN instance_count integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN series.instance_count IS 'Current instances; kept by a trigger. A series with none is not shown.';

UPDATE series SET instance_count = counted.number
FROM (SELECT series_id, count(*) AS number FROM instance WHERE state = 'current' GROUP BY series_id) counted
WHERE counted.series_id = series.id;

CREATE FUNCTION count_instances() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.state = 'current' THEN
        UPDATE public.series SET instance_count = instance_count - 1 WHERE id = OLD.series_id;
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.state = 'current' THEN
        UPDATE public.series SET instance_count = instance_count + 1 WHERE id = NEW.series_id;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER instance_counted AFTER INSERT OR DELETE OR UPDATE OF state, series_id ON instance
FOR EACH ROW EXECUTE FUNCTION count_instances();

-- A search without wildcards in front uses these; the C order is that of the bytes, which LIKE needs.
CREATE INDEX study_patient_id ON study (patient_id text_pattern_ops);
CREATE INDEX study_patient_name ON study (lower(patient_name) text_pattern_ops);
CREATE INDEX study_accession_number ON study (accession_number text_pattern_ops);
CREATE INDEX study_study_date ON study (study_date text_pattern_ops);

-- Both find the first current instance of a series without looking at the others.
DROP INDEX instance_series;
CREATE INDEX instance_series ON instance (series_id, id) WHERE state = 'current';
