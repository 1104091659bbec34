"""The hall: the only room that moves a job from one state to another."""
