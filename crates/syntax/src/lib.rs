//! Grafana Alloy's configuration language: lexer, parser, tree, diagnostics, values, evaluator, standard library.
