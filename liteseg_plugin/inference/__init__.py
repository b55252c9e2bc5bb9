"""From pictures to label maps with an exported model."""
