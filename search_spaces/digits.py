"""Which defense, and which hyperparameters, make a small CNN robust on scikit-learn's 8x8 digits?

    sweep run search_spaces/digits.py

Six defenses over 1,197 real images, judged on 300 more within an Linf ball of 0.1: about two minutes on two quiet
cores of an AMD EPYC. Measured there (validation, best completed trial of each defense, one seed, unconfirmed):

    defense                  trial  clean  pgd_10   fgsm  pgd_50x2  cw_pgd_40  worst case  cost
    hybrid                      22  0.990   0.913  0.917     0.903      0.910       0.903  5.8x
    adversarial_training         3  0.997   0.873  0.897     0.870      0.877       0.867  6.0x
    feature_squeezing            6  0.910   0.787  0.823     0.743      0.780       0.733  1.0x
    gradient_regularization      5  0.980   0.703  0.743     0.703      0.707       0.693  2.0x
    standard                     8  0.960   0.620  0.637     0.597      0.617       0.597  1.0x

24 trials: 15 completed, 9 stopped, the only one of trades (0.833) among these. The hybrid had 11 trials, adversarial
training 5. The paper's own configuration (trial 0) reaches 0.573. Trials 0 to 6 are enqueued below, and the same in
every run; two run at once, and what is proposed after them depends on which ends first.

    sweep confirm digits --top 3 --seeds 5 --attack auto_attack

trains the best three and the baselines again, with five fresh seeds, and opens the test split: 35 trainings with every
validity check, 37 minutes on two busy cores. A baseline is, of each defense that is not among the best, the first
enqueued trial that completed, so that no luck chose it: of standard training trial 2, not 8; of trades none. Means
over seeds; worst case: of AutoAttack and PGD-10 together, with its 95 % interval over seeds and images; p: against the
first row, Holm's.

                                     validation       test
    defense                 trial  searched  fresh   clean  pgd_10  auto_attack  worst case              p
    hybrid                     22     0.913  0.903   0.989   0.885        0.879  0.879 [0.842, 0.913]
    hybrid                     11     0.907  0.879   0.989   0.872        0.861  0.861 [0.826, 0.895]  0.449
    hybrid                     13     0.907  0.914   0.984   0.887        0.881  0.881 [0.843, 0.915]  0.888
    adversarial_training        3     0.873  0.885   0.986   0.865        0.860  0.860 [0.822, 0.896]  0.449
    feature_squeezing           6     0.787  0.794   0.914   0.763        0.660  0.659 [0.611, 0.708]
    gradient_regularization     5     0.703  0.701   0.978   0.696        0.680  0.680 [0.631, 0.728]  0.001
    standard                    2     0.603  0.575   0.977   0.585        0.560  0.560 [0.484, 0.631]  0.001

No difference is shown between the hybrid and adversarial training; the hybrid is better than gradient regularization
and standard training. The squeezed network is valid in the search and suspect here, in all five seeds: random points
break images that the judge left standing (V15 in docs/validity.md, above 0.05), 0.05 by the search's fast checks, 20
draws on 100 images, and 0.08 to 0.10 by the full ones, 500 on 300. So nothing is compared with it; AutoAttack takes 10
points from it.
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
    name="digits",
    space=SearchSpace(
        dataset="digits",
        model=dict(name="small_cnn", width=16),
        threat_model=dict(name="linf", epsilon=0.1),
        epochs=25,
        batch_size=128,
        optimizer=dict(name="sgd", learning_rate=LogUniform(3e-3, 0.3), weight_decay=LogUniform(1e-5, 5e-3)),
        defense=OneOf(
            standard={},
            adversarial_training=dict(
                epsilon=Uniform(0.02, 0.2),
                attack=OneOf(pgd=dict(num_steps=Choice(3, 5)), fgsm=dict(random_start=Choice(True, False))),
            ),
            trades=dict(epsilon=Uniform(0.02, 0.2), beta=LogUniform(1, 10), attack=dict(name="pgd", num_steps=5)),
            gradient_regularization=dict(penalty=LogUniform(1e-3, 1)),
            feature_squeezing=dict(bit_depth=Integer(1, 4), median=Choice(1, 2, 3)),
            hybrid=dict(
                epsilon=Uniform(0.02, 0.2),
                attack=dict(name="pgd", num_steps=Choice(3, 5)),
                # Risen by two fifths of training, so that early stopping judges it at its full radius.
                epsilon_schedule=OneOf(
                    constant={},
                    linear=dict(start=0.1, ramp=0.4),
                    cosine=dict(start=0.1, ramp=0.4),
                    exponential=dict(start=0.1, ramp=0.4),
                ),
                alpha_rule=OneOf(
                    paper_ratio=dict(measured_at=Choice("current", "target")),
                    fixed=dict(alpha=Uniform(0, 1)),
                ),
            ),
        ),
    ),
    search_attack=dict(name="pgd", num_steps=10),
    final_attacks=[dict(name="fgsm"), dict(name="pgd", num_steps=50, num_restarts=2), dict(name="cw_pgd")],
    objective=Maximize(
        "validation/pgd_10/adversarial_accuracy", subject_to={"validation/clean_accuracy": AtLeast(0.9)}
    ),
    early_stopping=Asha(resource="gradient_evaluations", grace_period=100_000, reduction_factor=3),
    budget=Budget(trials=24),
    per_trial=Resources(cpus=1),
    enqueue=[
        # The paper's own configuration: learning rate 0.01, batch 128, 50 epochs, epsilon 0.03.
        dict(
            defense=dict(
                name="hybrid",
                epsilon=0.03,
                attack=dict(num_steps=5),
                epsilon_schedule=dict(name="linear", ramp=1.0),
                alpha_rule=dict(name="paper_ratio", measured_at="target"),
            ),
            optimizer=dict(learning_rate=0.01, weight_decay=5e-4),
            epochs=50,
        ),
        # The paper's algorithm, and each defense with its usual weight, trained within the radius that is judged.
        dict(
            defense=dict(
                name="hybrid",
                epsilon=0.1,
                attack=dict(num_steps=5),
                epsilon_schedule="linear",
                alpha_rule=dict(name="paper_ratio", measured_at="target"),
            ),
            optimizer=dict(learning_rate=0.05, weight_decay=5e-4),
        ),
        dict(defense="standard", optimizer=dict(learning_rate=0.05, weight_decay=5e-4)),
        dict(
            defense=dict(name="adversarial_training", epsilon=0.1, attack=dict(name="pgd", num_steps=5)),
            optimizer=dict(learning_rate=0.05, weight_decay=5e-4),
        ),
        dict(defense=dict(name="trades", epsilon=0.1, beta=6.0), optimizer=dict(learning_rate=0.05, weight_decay=5e-4)),
        dict(
            defense=dict(name="gradient_regularization", penalty=0.1),
            optimizer=dict(learning_rate=0.05, weight_decay=5e-4),
        ),
        dict(
            defense=dict(name="feature_squeezing", bit_depth=1, median=2),
            optimizer=dict(learning_rate=0.05, weight_decay=5e-4),
        ),
    ],
)
