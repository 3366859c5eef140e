-- Anatomical structures that a model knows are a Segmentation of their own, told from the masks of findings.

ALTER TABLE analysis_instance
    DROP CONSTRAINT analysis_instance_role_check,
    ADD CONSTRAINT analysis_instance_role_check
        CHECK (role IN ('source', 'seg', 'labelmap', 'structures', 'pm', 'sr', 'sc', 'kos', 'other'));
