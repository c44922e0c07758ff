//! `prometheus.receive_http`: an HTTP server that takes remote write requests, versions 1 and 2, and hands each
//! request as one batch to its receivers before it answers. Every answer states what became of the samples.
