"""The adversarial loss in a run: a critic, what the network learns from it, and how it learns."""

from __future__ import annotations

import torch
from torch import Tensor

from stylenet import runtime
from stylenet.losses import adversarial_loss, gradient_penalty, hinge_loss
from stylenet.models.critic import Critic
from stylenet.training.parts import Part


class Adversary:
    """A critic with its optimiser. It sees crops of the style set and the network's outputs."""

    def __init__(self, critic: Critic, lr: float, r1_weight: float) -> None:
        optimizer = torch.optim.Adam(critic.parameters(), lr=lr, betas=(0.5, 0.999))
        self.part, self.r1_weight = Part(critic, optimizer), r1_weight

    def term(self, output: Tensor) -> Tensor:
        """The adversarial loss of outputs [N, 3, H, W]; the critic gets no gradient from it."""
        critic = self.part.module.requires_grad_(False)
        loss = adversarial_loss(critic(output))
        critic.requires_grad_(True)
        return loss

    def learn(self, paintings: Tensor, output: Tensor) -> dict[str, Tensor]:
        """One step of the critic, in float32; its loss, its accuracy and its gradient penalty."""
        critic, optimizer, _ = self.part
        real = paintings.detach().float().requires_grad_(self.r1_weight > 0)
        painted, made = critic(real), critic(output.detach().float())
        loss = hinge_loss(painted, made)
        facts = {"critic": loss.detach()}
        right = (painted > 0).float().mean(), (made < 0).float().mean()
        facts["critic_accuracy"] = torch.stack(right).mean()
        if self.r1_weight:
            penalty = gradient_penalty(painted, real)
            loss, facts["r1"] = loss + self.r1_weight * penalty, penalty.detach()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        runtime.average_gradients(critic)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return facts
