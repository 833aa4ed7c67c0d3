//! The built command as its users meet it, each time in a folder of its own.

#[cfg(test)]
mod support;

#[cfg(test)]
mod cli {
    mod basics;
    mod choices;
    mod crashes;
    mod documents;
    mod errors;
    mod help;
    mod hostile_text;
    mod journal;
    mod names;
    mod reads;
    mod render;
    mod secrets;
    mod service;
    mod signals;
    mod update;
}
