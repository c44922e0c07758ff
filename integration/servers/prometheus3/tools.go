//go:build tools

// Package tools pins the server that the suite builds.
package tools

import _ "github.com/prometheus/prometheus/cmd/prometheus"
