"""Which defense makes an EfficientNet-B0 robust on an ImageNet subset within an Linf ball of 4/255?

    sweep run search_spaces/imagenet_efficientnet_b0.py

Reads `imagenet/train/<class>/*` and `imagenet/val/<class>/*` under SWEEP_DATA_DIR; a subset is a folder with fewer
classes. Meant for GPUs, and not run in full here: the tests start, train and checkpoint every branch of it on a few
Tiny-ImageNet images. The paper's EfficientNet-B0 has 85.4 % clean accuracy on an unnamed subset; on all of ImageNet
the published one has 77.7 %.
"""

from sweep.study import (
    Asha,
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
    name="imagenet_efficientnet_b0",
    space=SearchSpace(
        dataset=dict(name="image_folder", folder="imagenet", size=160),
        model="efficientnet_b0",
        threat_model=dict(name="linf", epsilon=4 / 255),
        epochs=50,
        batch_size=128,
        optimizer=dict(name="sgd", learning_rate=LogUniform(0.01, 0.5), weight_decay=LogUniform(1e-5, 5e-4)),
        learning_rate_schedule=dict(name="cosine", start=1.0, end=0.0),
        augmentation="crop_flip",
        precision="bfloat16",
        defense=OneOf(
            standard={},
            adversarial_training=dict(
                epsilon=Uniform(2 / 255, 8 / 255),
                attack=OneOf(pgd=dict(num_steps=Choice(2, 3)), fgsm=dict(random_start=True, relative_step_size=1.25)),
            ),
            trades=dict(
                epsilon=Uniform(2 / 255, 8 / 255),
                beta=LogUniform(1, 10),
                attack=dict(name="pgd", num_steps=3, random_start="gaussian"),
            ),
            gradient_regularization=dict(penalty=LogUniform(1e-3, 10)),
            feature_squeezing=dict(bit_depth=Integer(3, 6), median=Choice(1, 2)),
            hybrid=dict(
                epsilon=Uniform(2 / 255, 8 / 255),
                attack=dict(name="pgd", num_steps=Choice(2, 3)),
                epsilon_schedule=OneOf(constant={}, linear=dict(start=0.1), cosine=dict(start=0.1)),
                alpha_rule=OneOf(
                    paper_ratio=dict(measured_at=Choice("current", "target")), fixed=dict(alpha=Uniform(0, 1))
                ),
                split_batch_norm=Choice(True, False),
            ),
        ),
    ),
    search_attack=dict(name="pgd", num_steps=10),
    final_attacks=[dict(name="fgsm"), dict(name="pgd", num_steps=50), dict(name="cw_pgd")],
    objective=Maximize("validation/pgd_10/adversarial_accuracy"),
    early_stopping=Asha(resource="epochs", grace_period=15, reduction_factor=3),
    budget=Budget(trials=30),
    per_trial=Resources(cpus=4, gpus=1),
    enqueue=[
        # The paper's own configuration: learning rate 0.01, batch 128, 50 epochs, epsilon 0.03.
        dict(
            defense=dict(
                name="hybrid",
                epsilon=0.03,
                attack=dict(num_steps=3),
                epsilon_schedule="linear",
                alpha_rule=dict(name="paper_ratio", measured_at="target"),
                split_batch_norm=False,
            ),
            optimizer=dict(learning_rate=0.01, weight_decay=5e-4),
            learning_rate_schedule="constant",
        ),
        # Each defense as its authors trained it.
        dict(defense="standard", optimizer=dict(learning_rate=0.1, weight_decay=1e-4)),
        dict(
            defense=dict(name="adversarial_training", epsilon=4 / 255, attack=dict(name="pgd", num_steps=3)),
            optimizer=dict(learning_rate=0.1, weight_decay=1e-4),
        ),
        dict(
            defense=dict(name="adversarial_training", epsilon=4 / 255, attack="fgsm"),
            optimizer=dict(learning_rate=0.1, weight_decay=1e-4),
        ),
        dict(
            defense=dict(name="trades", epsilon=4 / 255, beta=6.0), optimizer=dict(learning_rate=0.1, weight_decay=1e-4)
        ),
        dict(
            defense=dict(name="gradient_regularization", penalty=0.1),
            optimizer=dict(learning_rate=0.1, weight_decay=1e-4),
        ),
        dict(
            defense=dict(name="feature_squeezing", bit_depth=5, median=2),
            optimizer=dict(learning_rate=0.1, weight_decay=1e-4),
        ),
    ],
)
