"""Which defense makes a ResNet-18 robust on CIFAR-10 within an Linf ball of 8/255?

    sweep run search_spaces/cifar10_resnet18.py

Meant for GPUs: 50 epochs of PGD-10 adversarial training are 25 million gradient evaluations of a ResNet-18, for one
trial. Not run in full here: the tests start, train and checkpoint every branch of it on a few CIFAR-10 (JPEG) images.
The rung lies after the learning rate's first drop: over 67 published runs, robust accuracy before it says next to
nothing about the end (rank correlation -0.08 between epoch 29 of 200 and the last).
"""

from sweep.study import (
    Asha,
    AtLeast,
    Budget,
    Choice,
    Integer,
    LogUniform,
    Maximize,
    OneOf,
    Resources,
    SearchSpace,
    Study,
    Uniform,
)

STUDY = Study(
    name="cifar10_resnet18",
    space=SearchSpace(
        dataset="cifar10",
        model="resnet18",
        threat_model=dict(name="linf", epsilon=8 / 255),
        epochs=50,
        batch_size=128,
        optimizer=dict(name="sgd", learning_rate=LogUniform(0.01, 0.3), weight_decay=LogUniform(1e-4, 5e-3)),
        learning_rate_schedule=dict(name="step", milestones=[0.5, 0.75], gamma=0.1),
        augmentation="crop_flip",
        precision="bfloat16",
        defense=OneOf(
            standard={},
            adversarial_training=dict(
                epsilon=Uniform(4 / 255, 12 / 255),
                attack=OneOf(
                    pgd=dict(num_steps=Choice(7, 10)),
                    fgsm=dict(random_start=True, relative_step_size=Uniform(0.75, 1.25)),
                ),
            ),
            trades=dict(epsilon=Uniform(4 / 255, 12 / 255), beta=LogUniform(1, 10)),
            gradient_regularization=dict(penalty=LogUniform(1e-3, 10)),
            feature_squeezing=dict(bit_depth=Integer(3, 6), median=Choice(1, 2)),
            hybrid=dict(
                epsilon=Uniform(4 / 255, 12 / 255),
                attack=dict(name="pgd", num_steps=Choice(7, 10)),
                epsilon_schedule=OneOf(
                    constant={},
                    linear=dict(start=0.1, ramp=Uniform(0.2, 1)),
                    cosine=dict(start=0.1, ramp=Uniform(0.2, 1)),
                    exponential=dict(start=0.1, ramp=Uniform(0.2, 1)),
                ),
                alpha_rule=OneOf(
                    paper_ratio=dict(measured_at=Choice("current", "target"), momentum=Choice(0.0, 0.8)),
                    inverse_ratio=dict(measured_at=Choice("current", "target")),
                    fixed=dict(alpha=Uniform(0, 1)),
                ),
                split_batch_norm=Choice(True, False),
            ),
        ),
    ),
    search_attack=dict(name="pgd", num_steps=10),
    final_attacks=[dict(name="fgsm"), dict(name="pgd", num_steps=50, num_restarts=2), dict(name="cw_pgd")],
    objective=Maximize(
        "validation/pgd_10/adversarial_accuracy", subject_to={"validation/clean_accuracy": AtLeast(0.75)}
    ),
    early_stopping=Asha(resource="epochs", grace_period=30, reduction_factor=3),
    budget=Budget(trials=60),
    per_trial=Resources(cpus=2, gpus=0.5),
    enqueue=[
        # The paper's own configuration: learning rate 0.01, batch 128, 50 epochs, epsilon 0.03.
        dict(
            defense=dict(
                name="hybrid",
                epsilon=0.03,
                attack=dict(num_steps=10),
                epsilon_schedule=dict(name="linear", ramp=1.0),
                alpha_rule=dict(name="paper_ratio", measured_at="target", momentum=0.0),
                split_batch_norm=False,
            ),
            optimizer=dict(learning_rate=0.01, weight_decay=5e-4),
            learning_rate_schedule="constant",
        ),
        # Each defense as its authors trained it.
        dict(defense="standard", optimizer=dict(learning_rate=0.1, weight_decay=5e-4)),
        dict(
            defense=dict(name="adversarial_training", epsilon=8 / 255, attack=dict(name="pgd", num_steps=10)),
            optimizer=dict(learning_rate=0.1, weight_decay=5e-4),
        ),
        dict(
            defense=dict(
                name="adversarial_training", epsilon=8 / 255, attack=dict(name="fgsm", relative_step_size=1.25)
            ),
            optimizer=dict(learning_rate=0.1, weight_decay=5e-4),
        ),
        dict(
            defense=dict(name="trades", epsilon=8 / 255, beta=6.0), optimizer=dict(learning_rate=0.1, weight_decay=5e-4)
        ),
        dict(
            defense=dict(name="gradient_regularization", penalty=0.1),
            optimizer=dict(learning_rate=0.1, weight_decay=5e-4),
        ),
        dict(
            defense=dict(name="feature_squeezing", bit_depth=5, median=2),
            optimizer=dict(learning_rate=0.1, weight_decay=5e-4),
        ),
    ],
)
