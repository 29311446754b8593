// Package kafka holds what every Kafka client of Rollcall shares: how a broker
// is reached and trusted, how a component waits for it at start, and the form
// of a dead letter.
package kafka
