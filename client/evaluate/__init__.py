"""What a release costs and knows on the machine that it runs on: `fedstill client evaluate`, without torch."""
