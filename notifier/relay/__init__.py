"""The relay: reads captured changes, nets and renders them into messages, numbers and stores them."""
