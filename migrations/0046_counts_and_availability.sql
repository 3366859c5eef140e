-- The instances that a request adds are counted together: one update of a series instead of one an instance. And a search tells what was evicted.

CREATE FUNCTION count_added_instances() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE public.series SET instance_count = instance_count + counted.number
    FROM (SELECT series_id, count(*) AS number FROM added WHERE state = 'current' GROUP BY series_id) counted
    WHERE counted.series_id = series.id;
    RETURN NULL;
END $$;

-- A trigger that is told which rows it is about serves one kind of event, and every column.
DROP TRIGGER instance_counted ON instance;
CREATE TRIGGER instance_counted AFTER DELETE OR UPDATE OF state, series_id ON instance
FOR EACH ROW EXECUTE FUNCTION count_instances();
CREATE TRIGGER instances_added AFTER INSERT ON instance
REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION count_added_instances();

CREATE INDEX instance_evicted ON instance (series_id) WHERE evicted_at IS NOT NULL AND state = 'current';
