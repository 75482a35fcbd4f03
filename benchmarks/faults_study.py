"""What do kills at random moments do to a sweep? A short digits study for `benchmarks/faults.py`.

    sweep run benchmarks/faults_study.py

Two defenses, ten epochs of some tenths of a second each, with early stopping: long enough to be killed anywhere.
"""

from sweep.study import (
    Asha,
    Budget,
    Choice,
    LogUniform,
    Maximize,
    OneOf,
    SearchSpace,
    Study,
    Uniform,
)

STUDY = Study(
    name="faults",
    space=SearchSpace(
        dataset="digits",
        model=dict(name="small_cnn", width=8),
        threat_model=dict(name="linf", epsilon=0.1),
        epochs=10,
        optimizer=dict(name="sgd", learning_rate=LogUniform(3e-3, 0.3)),
        defense=OneOf(
            standard={},
            adversarial_training=dict(epsilon=Uniform(0.02, 0.2), attack=dict(name="pgd", num_steps=Choice(3, 5))),
        ),
    ),
    search_attack=dict(name="pgd", num_steps=10),
    objective=Maximize("validation/pgd_10/adversarial_accuracy"),
    early_stopping=Asha(resource="epochs", grace_period=2, reduction_factor=3),
    budget=Budget(trials=12),
    retries=100,  # each worker or node that is killed is one
)
