"""Training, framework-neutral: schedules, EMA and loss scale as closed forms, checkpoints, run folders, the loop."""
