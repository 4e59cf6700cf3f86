"""How messages travel: topics with partitions and offsets, embedded in this process or over Kafka."""
