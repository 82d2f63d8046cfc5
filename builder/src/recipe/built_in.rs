//! The recipes that imgbuild brings.

use std::path::Path;

use super::{Recipe, RecipeError};
use crate::assets;

/// The built-in recipes, in order of name.
pub fn recipes() -> Result<Vec<Recipe>, RecipeError> {
    let texts = assets::recipes().into_iter();
    texts
        .map(|(name, text)| Recipe::parse(&Path::new("images").join(name + ".toml"), &text))
        .collect()
}

/// A built-in recipe.
pub fn recipe(name: &str) -> Result<Recipe, RecipeError> {
    let recipes = recipes()?;
    let known = recipes.iter().map(|recipe| recipe.name.clone()).collect();
    recipes
        .into_iter()
        .find(|recipe| recipe.name == name)
        .ok_or_else(|| RecipeError::Unknown {
            name: name.to_owned(),
            known,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_recipes_are_valid_and_named_like_their_files() {
        let names: Vec<String> = recipes()
            .unwrap()
            .into_iter()
            .map(|recipe| recipe.name)
            .collect();
        let files: Vec<String> = assets::recipes()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, files);
        assert!(names.contains(&"tty-burn".to_owned()));
    }

    #[test]
    fn built_in_recipes_name_fragments_that_are_there() {
        let known: Vec<String> = assets::fragments(None)
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        for recipe in recipes().unwrap() {
            for fragment in &recipe.kernel.fragments {
                assert!(known.contains(fragment), "{}: {fragment}", recipe.name);
            }
        }
    }
}
