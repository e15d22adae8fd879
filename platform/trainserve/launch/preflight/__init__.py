"""What a job looks at in its first minute, so that what is wrong is one clear line and no hang.

`before` is what a rank finds out by itself; `network` is between the ranks, before and after they have met; `node` is
what each rank's pod has of what was asked for; `report` brings what the ranks found together.
"""
