-- What migration 8e2d4c6a1f37 of the sandbox's application would have done.
ALTER TABLE rows ADD COLUMN IF NOT EXISTS written_at timestamptz DEFAULT now();
