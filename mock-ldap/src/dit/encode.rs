/// Names of a [`super::Selection`] resolved against the schema.
#[derive(Debug)]
pub struct CompiledSelection {}
