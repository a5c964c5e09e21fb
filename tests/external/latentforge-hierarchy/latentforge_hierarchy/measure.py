class LevelKl:
    def __init__(self):
        self.sums, self.count = 0, 0

    def update(self, seen):
        self.sums = self.sums + seen.posterior.level_kl(seen.z_sample).sum(0)
        self.count += len(seen.z_sample)

    def compute(self):
        top, bottom = (self.sums / self.count).tolist()
        return {"level_kl_top": top, "level_kl_bottom": bottom}
